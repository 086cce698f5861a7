/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef CORPUS_H
#define CORPUS_H

#include <linux/module.h>
#include <linux/slab.h>

/*
 * A case: what the module does when it is loaded with case=NAME, and when it is unloaded. The
 * truth about each is in tests/support/corpus.py. Leaking functions are called leak_*; they must leave a
 * frame, so they are noinline and end in something else than a call.
 */
struct corpus_case {
	const char *name;
	int (*start)(void);
	void (*stop)(void);
};

extern const struct corpus_case slab_cases[], string_cases[], page_cases[], area_cases[],
	object_cases[], context_cases[], handler_cases[], pattern_cases[], innocent_cases[],
	innocent_object_cases[], maker_cases[];

/* Known at run time only, so that loops stay loops and sizes are not constants. */
extern int two, three, five, seven;
extern size_t large_bytes;

/* Does the leak of the case that is waiting for it: called by every handler. */
void leak_in_handler(void);

/* The compiler must believe that the pointer is used, or it drops the allocation. */
#define forget(pointer) OPTIMIZER_HIDE_VAR(pointer)

#endif
