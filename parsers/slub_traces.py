"""alloc_traces and free_traces of a slab cache, printed by slab_debugfs_show() in mm/slub.c.

    1009 lk_kmalloc+0x1b/0x30 [lk] waste=552932/548 age=480/481/482 pid=300 cpus=0 nodes=0
            lk_kmalloc+0x1b/0x30 [lk]
            do_one_initcall+0x5b/0x320

    5874 <not-available> age=4294900094 pid=0 cpus=0

In /sys/kernel/debug/slab/CACHE/, for caches with user tracking (slub_debug=U). 6.1 and 6.12
print stacks and waste=; where a kernel prints neither, the record is the one line. Ages are
jiffies: one figure, or least/mean/greatest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.code_location import CodeLocation, match_code_location, parse_code_location
from kleak.parsers.errors import ParseError

_COUNT = re.compile(r"\s*(?P<count>\d+) (?P<rest>\S.*)")
_NO_CALLER = "<not-available>"
_WASTE = re.compile(r"(\d+)/(\d+)")
_AGE = re.compile(r"(\d+)(?:/(\d+)/(\d+))?")
_PID = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, slots=True)
class Trace:
    """All objects of a cache that were allocated (or last freed) by one caller and stack.

    ``caller`` is None where the kernel recorded none. ``waste_bytes`` is what the objects waste
    together, ``age_jiffies`` and ``pids`` are (least, greatest); None where not printed.
    ``frames`` is innermost first, empty on kernels that print no stack.
    """

    count: int
    caller: CodeLocation | None
    waste_bytes: int | None = None
    age_jiffies: tuple[int, int] | None = None
    pids: tuple[int, int] | None = None
    frames: tuple[CodeLocation, ...] = ()


@dataclass(frozen=True, slots=True)
class SlubTraces:
    """A whole report, most objects first as the kernel sorts them."""

    traces: tuple[Trace, ...]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> SlubTraces:
    """Parse a report. With errors="collect" a damaged record is skipped and kept as a problem."""
    problems: list[ParseError] = []
    traces = tuple(stream(source, errors=errors, problems=problems))
    return SlubTraces(traces, tuple(problems))


def stream(
    source: Source, *, errors: OnError = "raise", problems: list[ParseError] | None = None
) -> Iterator[Trace]:
    """Yield the records one at a time.

    Raises ParseError at a damaged record, or appends it to ``problems`` with errors="collect".
    """
    damage = Damage(errors, problems)
    trace: Trace | None = None
    frames: list[CodeLocation] = []
    skipping = False
    for number, line in enumerate(iterate_lines(source), 1):
        bare = undress(line)
        text = bare.strip()
        if not text or text == "No data":
            continue
        head = _COUNT.fullmatch(bare)
        if head is not None:
            if trace is not None:
                yield replace(trace, frames=tuple(frames))
            trace, frames, skipping = None, [], False
            try:
                trace = _parse_head(int(head["count"]), head["rest"])
            except ParseError as error:
                damage.report(error.message, number, line)
                skipping = True
            continue
        if skipping:
            continue
        location = parse_code_location(text)
        if trace is not None and location is not None:
            frames.append(location)
            continue
        damage.report("neither a record nor a frame", number, line)
        trace, skipping = None, True
    if trace is not None:
        yield replace(trace, frames=tuple(frames))


def _parse_head(count: int, rest: str) -> Trace:
    caller: CodeLocation | None = None
    if rest.startswith(_NO_CALLER):
        words = rest.removeprefix(_NO_CALLER).split()
    else:
        found = match_code_location(rest)
        if found is None:
            raise ParseError("caller does not parse")
        caller = found[0]
        words = rest[found[1] :].split()
    values = dict(word.partition("=")[::2] for word in words)
    waste = _match(_WASTE, values, "waste")
    age = _match(_AGE, values, "age")
    pid = _match(_PID, values, "pid")
    return Trace(
        count=count,
        caller=caller,
        waste_bytes=None if waste is None else int(waste[1]),
        age_jiffies=None if age is None else (int(age[1]), int(age[3] or age[1])),
        pids=None if pid is None else (int(pid[1]), int(pid[2] or pid[1])),
    )


def _match(pattern: re.Pattern[str], values: dict[str, str], name: str) -> re.Match[str] | None:
    text = values.get(name)
    if text is None:
        return None
    match = pattern.fullmatch(text)
    if match is None:
        raise ParseError(f"{name}= does not parse")
    return match
