"""Numbers and sizes that the programs and their readers share: declared in the C text, read here.

Names are those of the C text without their prefix, in small letters. The readers of maps get their
structs from bcc, which reads the same declarations.
"""

from __future__ import annotations

import re

from kleak.capture.engine.bpf_source import read_source

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def enumerators(source: str, enum: str) -> dict[str, int]:
    """Return the names and numbers of an enum of a C text.

    Raises ValueError where there is none, or one with numbers that are no plain ones.
    """
    found = re.search(rf"\benum {enum}\s*{{(.*?)}}", _COMMENT.sub("", source), re.DOTALL)
    if found is None:
        raise ValueError(f"no enum {enum} in the C text")
    numbers: dict[str, int] = {}
    for entry in filter(None, map(str.strip, found[1].split(","))):
        name, _, number = map(str.strip, entry.partition("="))
        numbers[name] = int(number, 0) if number else max(numbers.values(), default=-1) + 1
    return numbers


def defined(source: str, name: str) -> int:
    """Return the number that a macro of a C text stands for. Raises ValueError if there is none."""
    found = re.search(rf"^#define {name} (\w+)[ \t]*$", _COMMENT.sub("", source), re.MULTILINE)
    if found is None:
        raise ValueError(f"no number {name} in the C text")
    return int(found[1], 0)


def _named(prefix: str, numbers: dict[str, int], *, end: str | None = None) -> tuple[str, ...]:
    """Names by their number; ``end`` counts the others."""
    names = [name for name in numbers if name != end]
    if [numbers[name] for name in names] != list(range(len(names))):
        raise ValueError(f"the numbers of {prefix}* have gaps")
    return tuple(re.sub(f"^(?:{prefix})_", "", name).lower() for name in names)


_SOURCE = read_source()
_COPIED = enumerators(_SOURCE, "copied_event")

COUNTERS = _named("COUNT", enumerators(_SOURCE, "counter"), end="COUNT_KINDS")
"""What is counted, by number."""
FAMILIES = _named("FAMILY", enumerators(_SOURCE, "family"))
"""Families of functions that give memory, by number."""
COPIED_EVENTS = _named("FREE|ALLOC", _COPIED, end="COPIED_EVENTS")
"""Events whose programs have two copies that tell by marks what the first missed, by number."""
COPIED_ALLOCATIONS = frozenset(
    COPIED_EVENTS[number] for name, number in _COPIED.items() if name.startswith("ALLOC_")
)
"""Those of them that allocate."""
MAX_LOADS = defined(_SOURCE, "MAX_LOADS")
MAX_PAGE_OWNERS = defined(_SOURCE, "MAX_PAGE_OWNERS")
MAX_GENERATIONS = defined(_SOURCE, "MAX_GENERATIONS")
FIRST_WALKS = defined(_SOURCE, "FIRST_WALKS")
SHARE_SLOTS = defined(_SOURCE, "SHARE_SLOTS")
