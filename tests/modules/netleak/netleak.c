// SPDX-License-Identifier: GPL-2.0-only
/* A network device that leaks when it is made, when it goes up, and when it goes down. */
#include <linux/etherdevice.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <net/rtnetlink.h>

static noinline int leak_at_creation(struct net_device *dev)
{
	for (int i = 0; i < 3; i++) {
		void *p = kmalloc(90, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
	}
	return 0;
}

static noinline int leak_at_open(struct net_device *dev)
{
	for (int i = 0; i < 5; i++) {
		void *p = kmalloc(300, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
	}
	return 0;
}

static noinline int leak_grown(struct net_device *dev)
{
	for (int i = 0; i < 7; i++) {
		void *p = krealloc(kmalloc(50, GFP_KERNEL), 700, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
	}
	return 0;
}

static netdev_tx_t swallow(struct sk_buff *skb, struct net_device *dev)
{
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops netleak_ops = {
	.ndo_init = leak_at_creation,
	.ndo_open = leak_at_open,
	.ndo_stop = leak_grown,
	.ndo_start_xmit = swallow,
};

static void set_up(struct net_device *dev)
{
	ether_setup(dev);
	dev->netdev_ops = &netleak_ops;
	dev->needs_free_netdev = true;
	eth_hw_addr_random(dev);
}

static struct rtnl_link_ops link_ops = {
	.kind = "netleak",
	.setup = set_up,
};

static int __init netleak_init(void)
{
	return rtnl_link_register(&link_ops);
}

static void __exit netleak_exit(void)
{
	rtnl_link_unregister(&link_ops);
}

module_init(netleak_init);
module_exit(netleak_exit);
MODULE_ALIAS_RTNL_LINK("netleak");
MODULE_DESCRIPTION("Leaks 3 objects for each device and 5 and 7 for each time it goes up and down");
MODULE_LICENSE("GPL");
