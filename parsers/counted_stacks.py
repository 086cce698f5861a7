"""Stacks with what is outstanding from each, as BPF tools print them.

memleak-bpfcc (and memleak of libbpf-tools, whose frames have numbers and addresses):

    [11:00:13] Top 10 stacks with outstanding allocations:
            6758400000 bytes in 3300000 allocations from stack
                    kmem_cache_alloc_trace+0x15c [kernel]
                    foo_open+0x31 [foo]

bpftrace, a map with a kernel stack as key; its offsets are decimal:

    @[
        __kmalloc+377
        foo_open+49
    ]: 3300000
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.code_location import CodeLocation
from kleak.parsers.errors import ParseError

_MEMLEAK_HEAD = re.compile(r"\[\d\d:\d\d:\d\d\] Top \d+ stacks with outstanding allocations:")
_MEMLEAK = re.compile(r"(?P<bytes>\d+) bytes in (?P<count>\d+) allocations from stack.*")
_SINGLE = re.compile(r"addr = [0-9a-f]+ size = \d+")
_MAP = re.compile(r"@(?P<name>\w*)\[(?P<key>[^\]]*)")
_END = re.compile(r"(?P<key>[^\]]*)\]: (?P<value>-?\d+)")
_FRAME = re.compile(
    r"(?:\d+\s+)?(?:\[<(?:0x)?[0-9a-f]+>\]\s+|0x[0-9a-f]+\s+)?(?P<symbol>[A-Za-z_][\w.$]*)"
    r"(?:\+(?P<offset>0x[0-9a-f]+|\d+))?(?:/0x[0-9a-f]+)?(?:\s+\[(?P<module>[^\]\s]+)\])?"
    r"(?:\s+\(\S+\))?"
)
_BARE = re.compile(r"(?:\d+\s+)?(?:\[<)?0x(?P<address>[0-9a-f]{8,16})(?:>\])?(?:\s+\[\w+\])?")
_UNKNOWN = re.compile(r"(?:\d+\s+)?(?:\[<?[0-9a-fx]*>?\]\s*)?\[?unknown\]?(?:\s+\[\w+\])?")


@dataclass(frozen=True, slots=True)
class CountedStack:
    """One stack, innermost first. ``size_bytes`` is None where the tool counts alone.

    ``count`` is None where it shows a sum of bytes alone: bpftrace does not say which it is.
    ``map_name`` is bpftrace's, "" for the map without a name, None for memleak.
    """

    count: int | None
    size_bytes: int | None
    frames: tuple[CodeLocation, ...]
    map_name: str | None = None


@dataclass(frozen=True, slots=True)
class CountedStacks:
    """A whole output, in its order."""

    stacks: tuple[CountedStack, ...]
    problems: tuple[ParseError, ...] = ()


def is_frame(text: str) -> bool:
    """Whether a line, blanks stripped, is a frame of either tool."""
    return any(p.fullmatch(text) is not None for p in (_FRAME, _BARE, _UNKNOWN))


def parse_memleak(source: Source, *, errors: OnError = "raise") -> CountedStacks:
    """Parse what memleak printed at one time. "collect" skips damaged lines and keeps them."""
    damage = Damage(errors)
    stacks: list[CountedStack] = []
    head: re.Match[str] | None = None
    frames: list[CodeLocation] = []
    for number, line in enumerate(iterate_lines(source), 1):
        text = undress(line).strip()
        if not text or _MEMLEAK_HEAD.fullmatch(line.strip()) or _SINGLE.fullmatch(text):
            continue
        begun = _MEMLEAK.fullmatch(text)
        if begun is not None:
            stacks += _memleak_stack(head, frames)
            head, frames = begun, []
        elif head is None or not _add_frame(text, frames):
            damage.report("neither a stack's head nor a frame", number, line)
    stacks += _memleak_stack(head, frames)
    return CountedStacks(tuple(stacks), tuple(damage.problems))


def _memleak_stack(
    head: re.Match[str] | None, frames: list[CodeLocation]
) -> Iterator[CountedStack]:
    if head is not None:
        yield CountedStack(int(head["count"]), int(head["bytes"]), tuple(frames))


@dataclass(slots=True)
class _Draft:
    number: int
    line: str
    name: str
    frames: list[CodeLocation] = field(default_factory=list)


def parse_bpftrace(source: Source, *, errors: OnError = "raise") -> CountedStacks:
    """Parse the maps that bpftrace printed. "collect" skips damaged lines and keeps them."""
    damage = Damage(errors)
    stacks: list[CountedStack] = []
    draft: _Draft | None = None
    for number, line in enumerate(iterate_lines(source), 1):
        text = undress(line).strip()
        if not text:
            continue
        end = _END.fullmatch(text)
        begun = _MAP.fullmatch(text)
        if begun is not None and end is None:
            if draft is not None:
                damage.report("map entry has no value", draft.number, draft.line)
            draft = _Draft(number, line, begun["name"])
        elif draft is None:
            damage.report("not in a map", number, line)
        elif end is not None:
            value = int(end["value"])
            # whoever sums bytes says so in the map's name
            counts_bytes = re.search(r"byte|size|mem", draft.name) is not None
            stacks.append(
                CountedStack(
                    None if counts_bytes else value,
                    value if counts_bytes else None,
                    tuple(draft.frames),
                    draft.name,
                )
            )
            draft = None
        elif not _add_frame(text.rstrip(","), draft.frames):
            damage.report("frame does not parse", number, line)
    if draft is not None:
        damage.report("map entry has no value", draft.number, draft.line)
    return CountedStacks(tuple(stacks), tuple(damage.problems))


def _add_frame(text: str, frames: list[CodeLocation]) -> bool:
    match = _BARE.fullmatch(text)
    if match is not None:
        frames.append(CodeLocation(None, None, None, None, int(match["address"], 16)))
        return True
    if _UNKNOWN.fullmatch(text) is not None:
        return True
    match = _FRAME.fullmatch(text)
    if match is None:
        return False
    module = None if match["module"] in (None, "kernel", "unknown") else match["module"]
    offset = None if match["offset"] is None else int(match["offset"], 0)
    frames.append(CodeLocation(match["symbol"], offset, None, module))
    return True
