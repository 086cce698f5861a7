// SPDX-License-Identifier: GPL-2.0-only
/* One module for all cases whose truth is known: load it with case=NAME. */
#include <linux/init.h>
#include <linux/string.h>

#include "corpus.h"

int two = 2, three = 3, five = 5, seven = 7;
module_param(two, int, 0444);
module_param(three, int, 0444);
module_param(five, int, 0444);
module_param(seven, int, 0444);
size_t large_bytes = 20000;
module_param(large_bytes, ulong, 0444);

static char *name = "";
module_param_named(case, name, charp, 0444);

static const struct corpus_case *const themes[] = {
	slab_cases,    string_cases,  page_cases,    area_cases,     object_cases,
	context_cases, handler_cases, pattern_cases, innocent_cases, innocent_object_cases,
	maker_cases,
};
static const struct corpus_case *chosen;

static int __init corpus_init(void)
{
	const struct corpus_case *one;
	int err;

	for (int theme = 0; theme < ARRAY_SIZE(themes); theme++) {
		for (one = themes[theme]; one->name; one++) {
			if (!strcmp(one->name, name))
				chosen = one;
		}
	}
	if (!chosen)
		return -EINVAL;
	err = chosen->start();
	barrier();
	return err;
}

static void __exit corpus_exit(void)
{
	if (chosen->stop)
		chosen->stop();
	barrier();
}

module_init(corpus_init);
module_exit(corpus_exit);
MODULE_DESCRIPTION("Leaks, and what only looks like leaks, one case a load");
MODULE_LICENSE("GPL");
