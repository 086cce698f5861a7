// SPDX-License-Identifier: GPL-2.0-only
/* Objects of the kernel, given back to it or left in its care. */
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/dmapool.h>
#include <linux/etherdevice.h>
#include <linux/fs.h>
#include <linux/if_ether.h>
#include <linux/namei.h>
#include <linux/netdevice.h>
#include <linux/platform_device.h>
#include <linux/proc_fs.h>
#include <linux/skbuff.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include "corpus.h"

static noinline int give_skbs_back(void)
{
	for (int i = 0; i < 103; i++) {
		struct sk_buff *skb = alloc_skb(300, GFP_KERNEL);

		if (!skb)
			return -ENOMEM;
		local_bh_disable();
		/* In three ways: one by one, into the cache of NAPI, as a clone. */
		if (i % 3 == 0)
			consume_skb(skb_clone(skb, GFP_ATOMIC));
		if (i % 3 == 1)
			kfree_skb(skb);
		else
			napi_consume_skb(skb, 64);
		local_bh_enable();
	}
	return 0;
}

/* Frames that the network core takes, and drops when it finds nobody who wants them. */
static noinline int pass_skbs_up(void)
{
	for (int i = 0; i < 53; i++) {
		struct sk_buff *skb = netdev_alloc_skb(init_net.loopback_dev, 200);

		if (!skb)
			return -ENOMEM;
		skb_put_zero(skb, 100);
		skb->protocol = eth_type_trans(skb, init_net.loopback_dev);
		skb->protocol = htons(0x88b5);
		netif_rx(skb);
	}
	return 0;
}

static noinline int free_managed_memory(void)
{
	struct device *dev = root_device_register("corpus");

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	for (int i = 0; i < 11; i++)
		devm_kasprintf(dev, GFP_KERNEL, "managed %d", i);
	devm_kfree(dev, devm_kzalloc(dev, 300, GFP_KERNEL));
	root_device_unregister(dev);
	return 0;
}

static noinline int free_dma_memory(void)
{
	struct platform_device *device;
	dma_addr_t address, places[101];
	struct dma_pool *pool;
	void *p, *objects[101];

	device = platform_device_register_simple("corpus", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	device->dev.dma_mask = &device->dev.coherent_dma_mask;
	if (!dma_set_mask_and_coherent(&device->dev, DMA_BIT_MASK(64))) {
		for (int i = 1; i < 8; i++) {
			p = dma_alloc_coherent(&device->dev, i * 5000, &address, GFP_KERNEL);
			if (p)
				dma_free_coherent(&device->dev, i * 5000, p, address);
		}
		pool = dma_pool_create("corpus", &device->dev, 96, 32, 0);
		for (int i = 0; pool && i < ARRAY_SIZE(objects); i++)
			objects[i] = dma_pool_alloc(pool, GFP_KERNEL, &places[i]);
		for (int i = 0; pool && i < ARRAY_SIZE(objects); i++) {
			if (objects[i])
				dma_pool_free(pool, objects[i], places[i]);
		}
		dma_pool_destroy(pool);
	}
	platform_device_unregister(device);
	return 0;
}

static noinline int register_and_unregister(void)
{
	struct net_device *dev = alloc_etherdev(64);
	struct workqueue_struct *queue = alloc_workqueue("corpus", 0, 0);
	struct kmem_cache *cache = kmem_cache_create("corpus_gone", 88, 0, 0, NULL);

	if (dev)
		free_netdev(dev);
	if (queue)
		destroy_workqueue(queue);
	kmem_cache_destroy(cache);
	return 0;
}

static const struct proc_ops no_operations;

static noinline int make_entries_and_remove_them(void)
{
	struct dentry *directory = debugfs_create_dir("corpus", NULL);
	char name[32];

	debugfs_create_dir("below", directory);
	debugfs_remove(directory);
	for (int i = 0; i < 7; i++) {
		snprintf(name, sizeof(name), "corpus-%d", i);
		if (proc_create(name, 0, NULL, &no_operations))
			remove_proc_entry(name, NULL);
	}
	return 0;
}

/* Pages and an inode that stay in the caches of a file system. */
static noinline int write_a_file(void)
{
	static char data[3 * 4096 + 100];
	struct file *file;
	char name[48];
	loff_t at = 0;

	snprintf(name, sizeof(name), "/tmp/corpus-%llu", ktime_get_ns());
	file = filp_open(name, O_RDWR | O_CREAT, 0600);
	if (IS_ERR(file))
		return PTR_ERR(file);
	kernel_write(file, data, sizeof(data), &at);
	filp_close(file, NULL);
	return 0;
}

/* Names that do not exist leave dentries that say so. */
static noinline int look_names_up(void)
{
	struct path path;
	char name[48];

	for (int i = 0; i < 23; i++) {
		snprintf(name, sizeof(name), "/tmp/none-%llu-%d", ktime_get_ns(), i);
		if (!kern_path(name, 0, &path))
			path_put(&path);
	}
	return 0;
}

const struct corpus_case innocent_object_cases[] = {
	{ "innocent_skb", give_skbs_back },
	{ "innocent_skb_passed_up", pass_skbs_up },
	{ "innocent_devm", free_managed_memory },
	{ "innocent_dma", free_dma_memory },
	{ "innocent_registered", register_and_unregister },
	{ "innocent_entries", make_entries_and_remove_them },
	{ "innocent_page_cache", write_a_file },
	{ "innocent_dentries", look_names_up },
	{}
};
