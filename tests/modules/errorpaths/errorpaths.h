/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Error paths with known truth. Each case has an up, which allocates and may
 * fail, and a down. A function whose name begins with bad_ has one call whose
 * failure leaks; the comment BUG says what. Nothing else leaks.
 */
#ifndef ERRORPATHS_H
#define ERRORPATHS_H

#include <linux/slab.h>

struct error_path {
	const char *name;
	int (*up)(void);
	void (*down)(void);
};

#define PATH(n) { #n, n##_up, n##_down }

extern const struct error_path ladders[], loops[], registered[], innocents[];
extern const int ladder_count, loop_count, registered_count, innocent_count;


#endif
