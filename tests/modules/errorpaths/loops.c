// SPDX-License-Identifier: GPL-2.0-only
/* Loops that fail half-way, failures that are tolerated, and failures in a row. */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include "errorpaths.h"

#define MANY 5

static void *parts[MANY], *rows[MANY], *pairs[2 * MANY], *areas[3];

static noinline int bad_loop_up(void)
{
	int i;

	for (i = 0; i < MANY; i++) {
		parts[i] = kmalloc(96, GFP_KERNEL);
		if (!parts[i])
			return -ENOMEM; /* BUG: those before stay */
	}
	return 0;
}

static void bad_loop_down(void)
{
	int i;

	for (i = 0; i < MANY; i++)
		kfree(parts[i]);
}

static noinline int bad_off_by_one_up(void)
{
	int i;

	for (i = 0; i < MANY; i++) {
		rows[i] = kzalloc(160, GFP_KERNEL);
		if (!rows[i])
			goto unwind;
	}
	return 0;
unwind:
	while (--i > 0) /* BUG: row 0 stays */
		kfree(rows[i]);
	return -ENOMEM;
}

static void bad_off_by_one_down(void)
{
	int i;

	for (i = 0; i < MANY; i++)
		kfree(rows[i]);
}

static noinline int bad_pairs_up(void)
{
	int i;

	for (i = 0; i < MANY; i++) {
		pairs[2 * i] = kmalloc(64, GFP_KERNEL);
		if (!pairs[2 * i])
			goto unwind;
		pairs[2 * i + 1] = kzalloc(48, GFP_KERNEL);
		if (!pairs[2 * i + 1])
			goto unwind; /* BUG: the first of this pair stays */
	}
	return 0;
unwind:
	while (i--) {
		kfree(pairs[2 * i]);
		kfree(pairs[2 * i + 1]);
	}
	return -ENOMEM;
}

static void bad_pairs_down(void)
{
	int i;

	for (i = 0; i < 2 * MANY; i++)
		kfree(pairs[i]);
}

static noinline int bad_areas_up(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(areas); i++) {
		areas[i] = vmalloc(PAGE_SIZE);
		if (!areas[i])
			return -ENOMEM; /* BUG: those before stay */
	}
	return 0;
}

static void bad_areas_down(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(areas); i++)
		vfree(areas[i]);
}

/* The load goes on without the second, and forgets the first. */
static void *tolerant, *option;

static noinline int bad_tolerant_up(void)
{
	void *first = kmalloc(112, GFP_KERNEL);

	tolerant = NULL;
	option = NULL;
	if (!first)
		return -ENOMEM;
	option = kmalloc(224, GFP_KERNEL);
	if (option)
		tolerant = first;
	return 0; /* BUG: without option, first stays */
}

static void bad_tolerant_down(void)
{
	kfree(tolerant);
	kfree(option);
}

/* What is there is replaced, and where that fails the pointer to the old one is gone. */
static void *buffer;

static noinline int bad_realloc_up(void)
{
	buffer = kmalloc(32, GFP_KERNEL);
	if (!buffer)
		return -ENOMEM;
	buffer = krealloc(buffer, 600, GFP_KERNEL);
	if (!buffer)
		return -ENOMEM; /* BUG: the old one stays */
	return 0;
}

static void bad_realloc_down(void)
{
	kfree(buffer);
}

/* A failure is retried in another way, and the retry forgets. */
static void *retried, *spare;

static noinline int bad_retry_up(void)
{
	spare = kmalloc(72, GFP_KERNEL);
	if (!spare)
		return -ENOMEM;
	retried = kmalloc(5000, GFP_KERNEL);
	if (!retried) {
		retried = kzalloc(500, GFP_KERNEL);
		spare = NULL; /* BUG: it stays */
	}
	return retried ? 0 : -ENOMEM;
}

static void bad_retry_down(void)
{
	kfree(retried);
	kfree(spare);
}

/* An object whose part fails is given up, without its other part. */
struct thing {
	void *one, *two;
};
static struct thing *thing;

static noinline int bad_nested_up(void)
{
	thing = kzalloc(sizeof(*thing), GFP_KERNEL);
	if (!thing)
		return -ENOMEM;
	thing->one = kmalloc(400, GFP_KERNEL);
	if (!thing->one)
		goto free_thing;
	thing->two = kstrdup("the second part of it", GFP_KERNEL);
	if (!thing->two)
		goto free_thing; /* BUG: one stays */
	return 0;
free_thing:
	kfree(thing);
	return -ENOMEM;
}

static void bad_nested_down(void)
{
	kfree(thing->two);
	kfree(thing->one);
	kfree(thing);
}

const struct error_path loops[] = {
	PATH(bad_loop), PATH(bad_off_by_one), PATH(bad_pairs), PATH(bad_areas),
	PATH(bad_tolerant), PATH(bad_realloc), PATH(bad_retry), PATH(bad_nested),
};
const int loop_count = ARRAY_SIZE(loops);
