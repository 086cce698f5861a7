// SPDX-License-Identifier: GPL-2.0-only
/* What can go wrong with a module under test, by the parameter "how". */
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timer.h>

static char *how = "none";
module_param(how, charp, 0444);
MODULE_PARM_DESC(how, "init: init leaks and fails; busy: in use for 2 s; stay: in use for ever; "
		      "hang: exit takes 20 s");

static int three = 3;
module_param(three, int, 0444);

static void let_go(struct timer_list *timer)
{
	module_put(THIS_MODULE);
}

static DEFINE_TIMER(timer, let_go);

static noinline void leak_on_error_path(void)
{
	for (int i = 0; i < three; i++) {
		void *p = kmalloc(90, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
	}
}

static int __init accident_init(void)
{
	if (!strcmp(how, "init")) {
		leak_on_error_path();
		return -ENODEV;
	}
	if (!strcmp(how, "busy") && try_module_get(THIS_MODULE))
		mod_timer(&timer, jiffies + 2 * HZ);
	if (!strcmp(how, "stay"))
		return try_module_get(THIS_MODULE) ? 0 : -EBUSY;
	return 0;
}

static void __exit accident_exit(void)
{
	if (!strcmp(how, "hang"))
		ssleep(20);
}

module_init(accident_init);
module_exit(accident_exit);
MODULE_DESCRIPTION("Behaves badly on purpose");
MODULE_LICENSE("GPL");
