"""References that were not given back, with who took them: __ref_tracker_dir_pr_ostream() in
lib/ref_tracker.c, in the kernel log and, from 6.17 on, in /sys/kernel/debug/ref_tracker.

    ref_tracker: veth%d@ffff888103b2a5d8 has 1/1 users at
         dst_init+0x84/0x4a0
         foo_route+0x97/0x130 [foo]

debugfs has no "ref_tracker: " before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.code_location import CodeLocation, parse_code_location
from kleak.parsers.errors import ParseError

HEAD = re.compile(
    r"(?:ref_tracker: )?(?P<name>\S*?)@(?P<address>[0-9a-fx]+|\(_*ptrval_*\)) has"
    r" (?P<users>\d+)/(?P<total>\d+) users at"
)


@dataclass(frozen=True, slots=True)
class TrackedReference:
    """References from one stack: ``users`` of ``total`` that the object ``name`` has."""

    name: str
    users: int
    total: int
    frames: tuple[CodeLocation, ...]


@dataclass(frozen=True, slots=True)
class RefTracker:
    """A whole text."""

    references: tuple[TrackedReference, ...]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> RefTracker:
    """Parse one text. With errors="collect" damaged lines are skipped and kept as problems."""
    damage = Damage(errors)
    found: list[TrackedReference] = []
    head: re.Match[str] | None = None
    frames: list[CodeLocation] = []
    for number, line in enumerate(iterate_lines(source), 1):
        text = undress(line).strip()
        if not text:
            continue
        begun = HEAD.fullmatch(text)
        if begun is not None:
            found += _reference(head, frames)
            head, frames = begun, []
            continue
        location = parse_code_location(text.removeprefix("ref_tracker: ").strip())
        if head is None or location is None:
            damage.report("neither a reference nor a frame", number, line)
        else:
            frames.append(location)
    found += _reference(head, frames)
    return RefTracker(tuple(found), tuple(damage.problems))


def _reference(
    head: re.Match[str] | None, frames: list[CodeLocation]
) -> Iterator[TrackedReference]:
    if head is not None:
        yield TrackedReference(head["name"], int(head["users"]), int(head["total"]), tuple(frames))
