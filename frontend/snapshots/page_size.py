"""The size of a page, by what the reports say: no report prints it, several give it away."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kleak.errors import UsageError
from kleak.parsers.slabinfo import Cache

SIZES = tuple(1 << shift for shift in range(12, 19))
# Machines whose pages have one size, whatever the kernel's options.
_FIXED = re.compile(r"x86_64|amd64|i[3-6]86|s390x?|riscv(?:32|64)?|armv[4-8]\w*")


def of_machine(machine: str) -> int | None:
    """The size of a page on a machine, None where the kernel's options decide."""
    return SIZES[0] if _FIXED.fullmatch(machine) else None


def of_caches(caches: Sequence[Cache]) -> int | None:
    """The page size at which a slab's objects fit into its pages, and one more does not.

    SLUB puts as many objects into a slab as there is room for (order_objects() in mm/slub.c), so
    objsize * objperslab is just below pagesperslab pages. None where the rows disagree or where
    there is none.
    """
    fits = dict.fromkeys(SIZES, 0)
    least = 0.0
    usable = 0
    for cache in caches:
        taken = cache.object_size_bytes * cache.objects_per_slab
        if taken <= 0 or cache.pages_per_slab <= 0:
            continue
        usable += 1
        least = max(least, taken / cache.pages_per_slab)
        for size in SIZES:
            fits[size] += size * cache.pages_per_slab // cache.object_size_bytes == (
                cache.objects_per_slab
            )
    possible = [size for size in SIZES if size >= least]
    if not usable or not possible:
        return None
    best = max(possible, key=lambda size: (fits[size], -size))
    # SLAB kept its own records in the slab, so that fewer fit: then the least size is right
    return best if 2 * fits[best] >= usable else possible[0]


def parse_size(text: str) -> int:
    """The page size that a user gave, such as 4096, 16k or 64K. Raises UsageError for others."""
    match = re.fullmatch(r"(\d{1,7})([kK]i?[bB]?)?", text.strip())
    size = 0 if match is None else int(match[1]) * (1024 if match[2] else 1)
    if size not in SIZES:
        known = ", ".join(f"{one >> 10}k" for one in SIZES)
        raise UsageError(f"{text!r} is not a page size; kleak knows {known}")
    return size
