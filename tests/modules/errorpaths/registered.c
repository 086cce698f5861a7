// SPDX-License-Identifier: GPL-2.0-only
/* What was registered or made before a failure and is forgotten, and managed memory. */
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include "errorpaths.h"

static const struct file_operations fops = { .owner = THIS_MODULE };

/* misc_register fails: the memory before it stays. */
static struct miscdevice misc = {
	.minor = MISC_DYNAMIC_MINOR, .name = "errorpaths", .fops = &fops,
};
static void *misc_data;

static noinline int bad_misc_up(void)
{
	misc_data = kmalloc(136, GFP_KERNEL);
	if (!misc_data)
		return -ENOMEM;
	return misc_register(&misc); /* BUG: misc_data stays */
}

static void bad_misc_down(void)
{
	misc_deregister(&misc);
	kfree(misc_data);
}

/* alloc_chrdev_region fails: the buffer stays. */
static dev_t region;
static void *region_data;

static noinline int bad_chrdev_up(void)
{
	region_data = kzalloc(1000, GFP_KERNEL);
	if (!region_data)
		return -ENOMEM;
	return alloc_chrdev_region(&region, 0, 3, "errorpaths"); /* BUG */
}

static void bad_chrdev_down(void)
{
	unregister_chrdev_region(region, 3);
	kfree(region_data);
}

/* A number of an IDA is fine, the name for it is not given back. */
static DEFINE_IDA(numbers);
static char *number_name;
static int number;

static noinline int bad_ida_up(void)
{
	number_name = kstrdup("the name of a number", GFP_KERNEL);
	if (!number_name)
		return -ENOMEM;
	number = ida_alloc(&numbers, GFP_KERNEL);
	if (number < 0)
		return number; /* BUG: its name stays */
	return 0;
}

static void bad_ida_down(void)
{
	ida_free(&numbers, number);
	kfree(number_name);
	ida_destroy(&numbers);
}

/* A device is there; memory for it fails; whoever made it forgets the plain part. */
static struct platform_device *managed;
static void *plain;

static noinline int bad_managed_up(void)
{
	int err = -ENOMEM;

	managed = platform_device_register_simple("errorpaths", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(managed))
		return PTR_ERR(managed);
	plain = kmalloc(264, GFP_KERNEL);
	if (!plain)
		goto unregister;
	if (!devm_kmalloc(&managed->dev, 176, GFP_KERNEL))
		goto unregister; /* BUG: plain stays, it is not managed */
	return 0;
unregister:
	platform_device_unregister(managed);
	return err;
}

static void bad_managed_down(void)
{
	platform_device_unregister(managed);
	kfree(plain);
}

/* The work is done by a helper that fails, and its caller thinks that it cleaned up. */
static void *helped[2];

static noinline int help(void **into)
{
	into[0] = kmalloc(88, GFP_KERNEL);
	if (!into[0])
		return -ENOMEM;
	into[1] = kmalloc(144, GFP_KERNEL);
	return into[1] ? 0 : -ENOMEM; /* BUG: the first one stays */
}

static noinline int bad_helper_up(void)
{
	return help(helped);
}

static void bad_helper_down(void)
{
	kfree(helped[1]);
	kfree(helped[0]);
}

/* The directory stays when what comes behind it fails; its name is taken then. */
static struct dentry *directory;
static void *behind;

static noinline int bad_debugfs_up(void)
{
	directory = debugfs_create_dir("errorpaths", NULL);
	behind = kmalloc(208, GFP_KERNEL);
	return behind ? 0 : -ENOMEM; /* BUG: the directory stays */
}

static void bad_debugfs_down(void)
{
	debugfs_remove_recursive(directory);
	kfree(behind);
}

const struct error_path registered[] = {
	PATH(bad_misc), PATH(bad_chrdev), PATH(bad_ida), PATH(bad_managed), PATH(bad_helper),
	PATH(bad_debugfs),
};
const int registered_count = ARRAY_SIZE(registered);
