// SPDX-License-Identifier: GPL-2.0-only
/* One function in each executable section of a module, and the shapes of code that make a
 * symboliser wrong: a call as the last instruction, inlined functions, two source files.
 */
#include <linux/init.h>
#include <linux/module.h>

#include "other.h"

static int width = 24;
module_param(width, int, 0444);
MODULE_PARM_DESC(width, "bytes of each object");
static char *label = "none";
module_param(label, charp, 0444);

static void *kept[8];

static __always_inline void *inlined_here(size_t size)
{
	void *p = kmalloc(size, GFP_KERNEL);

	return p;
}

static noinline void *plain(size_t size)
{
	void *p = inlined_here(size);

	kept[7] = p;
	return p;
}

static noinline void *from_header(size_t size)
{
	void *p = own_header(size);

	kept[7] = p;
	return p;
}

static noinline __section(".text.unlikely") void *unlikely_text(size_t size)
{
	void *p = kmalloc(size, GFP_KERNEL);

	kept[7] = p;
	return p;
}

/* The call to panic() is this function's last instruction. */
static noinline void ends_in_call(const char *why)
{
	panic("sections: %s", why);
}

static int noinline __init init_helper(void)
{
	kept[0] = plain(width);
	kept[1] = from_header(width);
	kept[2] = unlikely_text(width);
	kept[3] = other_text(width);
	kept[4] = other_cold(width);
	return 0;
}

static int __init sections_init(void)
{
	int error = init_helper();

	if (error)
		ends_in_call("init_helper");
	kept[5] = kmalloc(width, GFP_KERNEL);
	return error;
}

static void __exit sections_exit(void)
{
	int i;

	for (i = 0; i < 6; i++)
		kfree(kept[i]);
}

module_init(sections_init);
module_exit(sections_exit);
MODULE_VERSION("1.3.7");
MODULE_DESCRIPTION("A function in every executable section");
MODULE_LICENSE("GPL");
