// SPDX-License-Identifier: GPL-2.0-only
/* Objects of subsystems that a function fills in or hands out, given back or not. */
#include <crypto/hash.h>
#include <linux/bio.h>
#include <linux/kfifo.h>
#include <linux/kobject.h>
#include <linux/rhashtable.h>
#include <linux/scatterlist.h>
#include <linux/srcu.h>
#include <net/dst_cache.h>
#include <net/netlink.h>

#include "corpus.h"

static struct bio_set bios;
static struct dst_cache routes;
static struct rhashtable table;
static struct sg_table list;
static struct srcu_struct readers;
static struct kfifo queue;
static struct kobject thing;
static char *label;
static struct crypto_shash *digest;

struct entry {
	struct rhash_head node;
	u32 key;
};

static const struct rhashtable_params params = {
	.key_len = sizeof(u32),
	.key_offset = offsetof(struct entry, key),
	.head_offset = offsetof(struct entry, node),
};

static noinline int leak_nla_strdup(void)
{
	struct {
		struct nlattr head;
		char text[24];
	} attribute = { { NLA_HDRLEN + 20, 1 }, "a name of 19 letters" };

	label = nla_strdup(&attribute.head, GFP_KERNEL);
	return label ? 0 : -ENOMEM;
}

static noinline int leak_bioset(void)
{
	int err = bioset_init(&bios, seven, 0, 0);

	barrier();
	return err;
}

static noinline int leak_dst_cache(void)
{
	int err = dst_cache_init(&routes, GFP_KERNEL);

	barrier();
	return err;
}

static noinline int leak_rhashtable(void)
{
	int err = rhashtable_init(&table, &params);

	barrier();
	return err;
}

static noinline int leak_sg_table(void)
{
	int err = sg_alloc_table(&list, seven, GFP_KERNEL);

	barrier();
	return err;
}

static noinline int leak_srcu(void)
{
	int err = init_srcu_struct(&readers);

	barrier();
	return err;
}

static noinline int leak_kfifo(void)
{
	int err = kfifo_alloc(&queue, 512, GFP_KERNEL);

	barrier();
	return err;
}

static noinline int leak_shash(void)
{
	digest = crypto_alloc_shash("sha256", 0, 0);
	return PTR_ERR_OR_ZERO(digest);
}

static void released(struct kobject *object)
{
}

static const struct kobj_type kind = { .release = released };

/* Out of sysfs again, or the next load would find it there; the reference stays. */
static noinline int leak_kobject_added(void)
{
	int err;

	memset(&thing, 0, sizeof(thing));
	err = kobject_init_and_add(&thing, (struct kobj_type *)&kind, kernel_kobj,
				   "corpus_thing_%d", seven);
	if (!err)
		kobject_del(&thing);
	return err;
}

static int make_all(void)
{
	int err = leak_nla_strdup() ?: leak_bioset() ?: leak_dst_cache() ?: leak_rhashtable() ?:
		  leak_sg_table() ?: leak_srcu() ?: leak_kfifo() ?: leak_shash();

	return err ?: leak_kobject_added();
}

static void give_all_back(void)
{
	kfree(label);
	bioset_exit(&bios);
	dst_cache_destroy(&routes);
	rhashtable_destroy(&table);
	sg_free_table(&list);
	cleanup_srcu_struct(&readers);
	kfifo_free(&queue);
	crypto_free_shash(digest);
	kobject_put(&thing);
}

const struct corpus_case maker_cases[] = {
	{ "nla_strdup", leak_nla_strdup },
	{ "bioset", leak_bioset },
	{ "dst_cache", leak_dst_cache },
	{ "rhashtable", leak_rhashtable },
	{ "sg_table", leak_sg_table },
	{ "srcu", leak_srcu },
	{ "kfifo", leak_kfifo },
	{ "shash", leak_shash },
	{ "kobject_added", leak_kobject_added },
	{ "innocent_makers", make_all, give_all_back },
	{}
};
