// SPDX-License-Identifier: GPL-2.0-only
/* A module that the exercise loads: what it makes pinned leak has its functions on the stack. */
#include <linux/init.h>
#include <linux/module.h>
#include "pinned.h"

static noinline int join_twice(void)
{
	int error = pinned_join(2);

	barrier();
	return error;
}

static int join_more(const char *value, const struct kernel_param *parameter)
{
	int error = join_twice();

	barrier();
	return error;
}

static const struct kernel_param_ops more_ops = { .set = join_more };
module_param_cb(more, &more_ops, NULL, 0200);

static int __init pinned_user_init(void)
{
	int error = pinned_join(1);

	barrier();
	return error;
}

static void __exit pinned_user_exit(void)
{
}

module_init(pinned_user_init);
module_exit(pinned_user_exit);
MODULE_DESCRIPTION("Uses pinned");
MODULE_LICENSE("GPL");
