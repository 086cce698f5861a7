// SPDX-License-Identifier: GPL-2.0-only
/* Brings all cases up, one after the other; what fails brings those before it down again. */
#include <linux/module.h>
#include "errorpaths.h"

static char *group = "all";
module_param(group, charp, 0444);

static int bring_up(const char *name, const struct error_path *paths, int count)
{
	int i, err;

	if (strcmp(group, "all") && strcmp(group, name))
		return 0;
	for (i = 0; i < count; i++) {
		err = paths[i].up();
		if (err) {
			while (i--)
				paths[i].down();
			return err;
		}
	}
	return 0;
}

static void bring_down(const char *name, const struct error_path *paths, int count)
{
	if (strcmp(group, "all") && strcmp(group, name))
		return;
	while (count--)
		paths[count].down();
}

static int __init errorpaths_init(void)
{
	int err;

	err = bring_up("ladders", ladders, ladder_count);
	if (err)
		return err;
	err = bring_up("loops", loops, loop_count);
	if (err)
		goto down_ladders;
	err = bring_up("registered", registered, registered_count);
	if (err)
		goto down_loops;
	err = bring_up("innocents", innocents, innocent_count);
	if (err)
		goto down_registered;
	return 0;
down_registered:
	bring_down("registered", registered, registered_count);
down_loops:
	bring_down("loops", loops, loop_count);
down_ladders:
	bring_down("ladders", ladders, ladder_count);
	return err;
}

static void __exit errorpaths_exit(void)
{
	bring_down("innocents", innocents, innocent_count);
	bring_down("registered", registered, registered_count);
	bring_down("loops", loops, loop_count);
	bring_down("ladders", ladders, ladder_count);
}
module_init(errorpaths_init);
module_exit(errorpaths_exit);
MODULE_DESCRIPTION("Error paths with known leaks");
MODULE_LICENSE("GPL");
