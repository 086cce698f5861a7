// SPDX-License-Identifier: GPL-2.0-only
#include "../other.h"

noinline void *other_text(size_t size)
{
	void *p = kmalloc(size, GFP_KERNEL);

	if (!ZERO_OR_NULL_PTR(p))
		memset(p, 1, size);
	return p;
}

noinline __cold void *other_cold(size_t size)
{
	void *p = kmalloc(size, GFP_KERNEL);

	if (!ZERO_OR_NULL_PTR(p))
		memset(p, 2, size);
	return p;
}
