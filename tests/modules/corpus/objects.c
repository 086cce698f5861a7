// SPDX-License-Identifier: GPL-2.0-only
/* Objects that a subsystem of the kernel makes, and that are never given back to it. */
#include <linux/debugfs.h>
#include <linux/etherdevice.h>
#include <linux/netdevice.h>
#include <linux/proc_fs.h>
#include <linux/skbuff.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include "corpus.h"

static noinline int leak_netdev(void)
{
	for (int i = 0; i < two; i++) {
		struct net_device *dev = alloc_etherdev(64);

		forget(dev);
	}
	return 0;
}

static noinline int leak_workqueue(void)
{
	struct workqueue_struct *queue = alloc_workqueue("corpus", 0, 0);

	forget(queue);
	return 0;
}

static noinline int leak_skb(void)
{
	for (int i = 0; i < three; i++) {
		struct sk_buff *skb = alloc_skb(1500, GFP_KERNEL);

		forget(skb);
	}
	return 0;
}

static const struct proc_ops no_operations;

/* Names of their own for each load, since the entries stay. */
static noinline int leak_proc_entry(void)
{
	struct proc_dir_entry *entry;
	char name[40];

	snprintf(name, sizeof(name), "corpus_%llu", ktime_get_ns());
	entry = proc_create(name, 0, NULL, &no_operations);
	forget(entry);
	return 0;
}

static noinline int leak_debugfs_entry(void)
{
	struct dentry *entry;
	char name[40];

	snprintf(name, sizeof(name), "corpus_%llu", ktime_get_ns());
	entry = debugfs_create_dir(name, NULL);
	forget(entry);
	return 0;
}

const struct corpus_case object_cases[] = { { "netdev", leak_netdev },
					    { "workqueue", leak_workqueue },
					    { "skb", leak_skb },
					    { "proc_entry", leak_proc_entry },
					    { "debugfs_entry", leak_debugfs_entry },
					    {} };
