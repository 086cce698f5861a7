// SPDX-License-Identifier: GPL-2.0-only
/* Memory that a helper of the kernel allocates for its caller. */
#include <linux/device.h>
#include <linux/kobject.h>
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "corpus.h"

static noinline int leak_kstrdup(void)
{
	for (int i = 0; i < three; i++) {
		void *p = kstrdup("a string of twenty-five c", GFP_KERNEL);

		forget(p);
	}
	return 0;
}

static noinline int leak_kasprintf(void)
{
	for (int i = 0; i < seven; i++) {
		void *p = kasprintf(GFP_KERNEL, "corpus %d of %d", i, seven);

		forget(p);
	}
	return 0;
}

static noinline int leak_kmemdup(void)
{
	for (int i = 0; i < two; i++) {
		void *p = kmemdup(&large_bytes, sizeof(large_bytes), GFP_KERNEL);

		forget(p);
	}
	return 0;
}

/* Never put: its name stays. The kobject itself is static, which is wrong, and harmless here. */
static struct kobject nameless;
static struct kobj_type no_type;

static noinline int leak_kobject_name(void)
{
	int err;

	kobject_init(&nameless, &no_type);
	err = kobject_set_name(&nameless, "corpus-%d", seven);
	barrier();
	return err;
}

/* One reference too many: the device stays. */
static noinline int leak_device(void)
{
	struct device *dev = root_device_register("corpus");

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	get_device(dev);
	root_device_unregister(dev);
	return 0;
}

/* A device that is never unregistered keeps its managed memory. */
static noinline int leak_managed(void)
{
	struct device *dev;
	char name[40];

	snprintf(name, sizeof(name), "corpus_%llu", ktime_get_ns());
	dev = root_device_register(name);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	for (int i = 0; i < seven; i++) {
		void *p = devm_kzalloc(dev, 300, GFP_KERNEL);

		forget(p);
	}
	return 0;
}

const struct corpus_case string_cases[] = { { "kstrdup", leak_kstrdup },
					    { "kasprintf", leak_kasprintf },
					    { "kmemdup", leak_kmemdup },
					    { "kobject_name", leak_kobject_name },
					    { "device", leak_device },
					    { "managed", leak_managed },
					    {} };
