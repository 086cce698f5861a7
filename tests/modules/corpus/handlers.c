// SPDX-License-Identifier: GPL-2.0-only
/* Leaks in what user space or the kernel calls later: the exercise command of the case does it. */
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/notifier.h>
#include <linux/platform_device.h>
#include <linux/proc_fs.h>

#include "corpus.h"

noinline void leak_in_handler(void)
{
	void *p = kmalloc(170, GFP_KERNEL);

	forget(p);
}

static ssize_t leak_write(struct file *file, const char __user *data, size_t size, loff_t *at)
{
	leak_in_handler();
	return size;
}

static long leak_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	leak_in_handler();
	return 0;
}

static int leak_poke(const char *value, const struct kernel_param *param)
{
	leak_in_handler();
	return 0;
}

static const struct kernel_param_ops poke = { .set = leak_poke };
module_param_cb(poke, &poke, NULL, 0200);

static int start_sysfs(void)
{
	return 0;
}

static const struct proc_ops proc_operations = { .proc_write = leak_write };

static int start_procfs(void)
{
	return proc_create("corpus", 0200, NULL, &proc_operations) ? 0 : -ENOMEM;
}

static void stop_procfs(void)
{
	remove_proc_entry("corpus", NULL);
}

static const struct file_operations file_operations = {
	.owner = THIS_MODULE,
	.write = leak_write,
	.unlocked_ioctl = leak_ioctl,
};
static struct dentry *entry;

static int start_debugfs(void)
{
	entry = debugfs_create_file("corpus", 0200, NULL, NULL, &file_operations);
	return PTR_ERR_OR_ZERO(entry);
}

static void stop_debugfs(void)
{
	debugfs_remove(entry);
}

static struct miscdevice misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "corpus",
	.fops = &file_operations,
};

static int start_ioctl(void)
{
	int err = misc_register(&misc);

	barrier();
	return err;
}

static void stop_ioctl(void)
{
	misc_deregister(&misc);
}

static int leak_in_probe(struct platform_device *device)
{
	leak_in_handler();
	return 0;
}

static struct platform_driver driver = {
	.probe = leak_in_probe,
	.driver = { .name = "corpus" },
};
static struct platform_device *device;

static int start_probe(void)
{
	int err = platform_driver_register(&driver);

	if (err)
		return err;
	device = platform_device_register_simple("corpus", PLATFORM_DEVID_NONE, NULL, 0);
	if (!IS_ERR(device))
		return 0;
	platform_driver_unregister(&driver);
	return PTR_ERR(device);
}

static void stop_probe(void)
{
	platform_device_unregister(device);
	platform_driver_unregister(&driver);
}

static int leak_in_notifier(struct notifier_block *block, unsigned long event, void *data)
{
	leak_in_handler();
	return NOTIFY_OK;
}

static struct notifier_block block = { .notifier_call = leak_in_notifier };
static BLOCKING_NOTIFIER_HEAD(chain);

static int start_notifier(void)
{
	int err = blocking_notifier_chain_register(&chain, &block);

	for (int i = 0; i < five; i++)
		blocking_notifier_call_chain(&chain, i, NULL);
	return err;
}

static void stop_notifier(void)
{
	blocking_notifier_chain_unregister(&chain, &block);
}

const struct corpus_case handler_cases[] = { { "sysfs", start_sysfs },
					     { "procfs", start_procfs, stop_procfs },
					     { "debugfs", start_debugfs, stop_debugfs },
					     { "ioctl", start_ioctl, stop_ioctl },
					     { "probe", start_probe, stop_probe },
					     { "notifier", start_notifier, stop_notifier },
					     {} };
