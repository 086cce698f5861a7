// SPDX-License-Identifier: GPL-2.0-only
/*
 * Modules that cannot be unloaded, by "how":
 *   forgotten  each write of poke takes an object and a reference to the module, and forgets both
 *   kept       each write takes a reference and forgets it; what it allocates it frees
 *   once       the first write keeps an object and a reference for good, later ones nothing
 *   held       nothing is forgotten: who opens /dev/pinned holds an object, and a reference
 *   nothing    as held, and nothing is written
 */
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "pinned.h"

static char *how = "nothing";
module_param(how, charp, 0444);

static void *table;
static int forgotten; /* references */

static void hold(void)
{
	__module_get(THIS_MODULE);
	forgotten++;
}

static noinline void forget_objects(int number)
{
	for (int i = 0; i < number; i++) {
		void *p = kmalloc(200, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
		barrier();
	}
}

static noinline void use_objects(int number)
{
	for (int i = 0; i < number; i++) {
		void *p = kmalloc(200, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
		kfree(p);
	}
}

static int poke(const char *value, const struct kernel_param *parameter)
{
	static bool before;

	if (!strcmp(how, "forgotten")) {
		hold();
		forget_objects(3);
	} else if (!strcmp(how, "kept")) {
		hold();
		use_objects(3);
	} else if (!strcmp(how, "once") && !before) {
		hold();
		forget_objects(3);
		before = true;
	}
	return 0;
}

static const struct kernel_param_ops poke_ops = { .set = poke };
module_param_cb(poke, &poke_ops, NULL, 0200);

/* So that a test can clean up behind itself. */
static int release(const char *value, const struct kernel_param *parameter)
{
	for (; forgotten; forgotten--)
		module_put(THIS_MODULE);
	return 0;
}

static const struct kernel_param_ops release_ops = { .set = release };
module_param_cb(release, &release_ops, NULL, 0200);

static int pinned_open(struct inode *inode, struct file *file)
{
	file->private_data = kmalloc(300, GFP_KERNEL);
	return file->private_data ? 0 : -ENOMEM;
}

static int pinned_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static const struct file_operations pinned_fops = {
	.owner = THIS_MODULE,
	.open = pinned_open,
	.release = pinned_release,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "pinned",
	.fops = &pinned_fops,
};

/* For pinned_user, which joins in its init. */
noinline int pinned_join(int number)
{
	forget_objects(number);
	barrier();
	return 0;
}
EXPORT_SYMBOL_GPL(pinned_join);

static int __init pinned_init(void)
{
	table = kmalloc(1000, GFP_KERNEL); /* in use for as long as it is loaded */
	return misc_register(&device);
}

static void __exit pinned_exit(void)
{
	misc_deregister(&device);
	kfree(table);
}

module_init(pinned_init);
module_exit(pinned_exit);
MODULE_DESCRIPTION("Cannot be unloaded, for several reasons");
MODULE_LICENSE("GPL");
