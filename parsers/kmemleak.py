"""/sys/kernel/debug/kmemleak, printed by print_unreferenced() in mm/kmemleak.c.

    unreferenced object 0xffff888003c2a500 (size 128):
      comm "insmod", pid 331, jiffies 4294937296 (age 12.345s)          no age from 6.8 on
      hex dump (first 32 bytes):
        6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b  kkkkkkkkkkkkkkkk
      backtrace (crc 9c3a2f1e):                                         crc from 6.8 on
        [<000000002f3a1c77>] lx_leak+0x1f/0x50 [leakx]                  address up to 6.8
        [<bf00a048>] lx_leak+0x1f/0x50 [leakx]                          32-bit kernels

The object's address is real in every version; the addresses in brackets are hashed up to 6.1 and
follow kptr_restrict from 6.2 on. The same text in the kernel log has "kmemleak: " before each
line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.code_location import (
    AddressKind,
    CodeLocation,
    classify_address,
    parse_code_location,
)
from kleak.parsers.errors import ParseError

_HEADER = re.compile(
    r"unreferenced object(?: \((?P<kind>percpu|phys)\))? 0x(?P<address>[0-9a-f]+)"
    r" \(size (?P<size>\d+)\):?"
)
_COMM = re.compile(
    r'comm "(?P<comm>.*)", pid (?P<pid>-?\d+), jiffies (?P<jiffies>\d+)'
    r"(?: \(age (?P<age>\d+\.\d+)s(?:ec)?\))?"
)
_HEX_HEAD = re.compile(r"hex dump \(first (?P<length>\d+) bytes(?: on cpu (?P<cpu>\d+))?\):")
_HEX_LINE = re.compile(r"((?:[0-9a-f]{2} ?){1,16})(?: .*)?")
_BACKTRACE = re.compile(r"backtrace(?: \(crc (?P<crc>[0-9a-f]+)\))?:")
_FRAME = re.compile(
    r"(?:\[<(?:0x)?(?P<address>[0-9a-f]{8,16}|\(_*ptrval_*\))>\] +)?(?P<location>\S.*)"
)
_DUMP_HEADER = re.compile(r"kmemleak: Object(?: \(\w+\))? 0x([0-9a-f]+) \(size \d+\):")
_DUMP_COUNT = re.compile(r"kmemleak: +(min_count|count) = (-?\d+)")
# how a whole stack ends; MAX_TRACE frames are another way
_OUTERMOST = re.compile(r"entry_|ret_from_|asm_|start_kernel|x86_64_start|secondary_startup")
_MAX_TRACE = 16
_KNOWN_FRAMES_MAX = 1 << 14


@dataclass(frozen=True, slots=True)
class UnreferencedObject:
    """One object that the last scan found no pointer to.

    ``kind`` is "object", "percpu" or "phys". ``age_seconds`` counts up to the read and is None
    from 6.8 on. ``frames`` is innermost first, at most 16. ``frame_addresses`` are the return
    addresses where the kernel printed real ones for all frames, else None. ``contents`` are the
    object's first bytes, at most 32.
    """

    address: int
    size_bytes: int
    kind: str
    comm: str
    pid: int
    jiffies: int
    age_seconds: float | None
    contents: bytes
    contents_cpu: int | None
    crc: int | None
    frames: tuple[CodeLocation, ...]
    frame_addresses: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class ObjectState:
    """What kmemleak knows of one object, as of its last scan.

    ``references`` are the pointers found to it, counted up to ``needed``: with so many it is not
    unreferenced. ``needed`` is 0 or less for an object that is never reported.
    """

    references: int
    needed: int

    @property
    def referenced(self) -> bool:
        """Whether pointers to it were found, as many as it takes."""
        return self.references >= self.needed > 0


@dataclass(frozen=True, slots=True)
class Kmemleak:
    """A whole report, in the kernel's order (oldest object first)."""

    objects: tuple[UnreferencedObject, ...]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> Kmemleak:
    """Parse a report. With errors="collect" a damaged object is skipped and kept as a problem."""
    problems: list[ParseError] = []
    objects = tuple(stream(source, errors=errors, problems=problems))
    return Kmemleak(objects, tuple(problems))


def parse_dump(source: Source, address: int) -> ObjectState | None:
    """Parse what ``dump=ADDRESS`` put into the kernel log, by dump_object_info() in mm/kmemleak.c.

        kmemleak: Object 0xffff888003c2a500 (size 128):
        kmemleak:   comm "insmod", pid 331, jiffies 4294937296
        kmemleak:   min_count = 1
        kmemleak:   count = 0

    Other lines of the log are passed over. None where the object or its counts are not there.
    """
    counts: dict[str, int] = {}
    inside = False
    for line in iterate_lines(source):
        text = undress(line)
        if match := _DUMP_HEADER.match(text):
            inside = int(match[1], 16) == address
        elif inside and (match := _DUMP_COUNT.fullmatch(text)):
            counts.setdefault(match[1], int(match[2]))
    if counts.keys() != {"min_count", "count"}:
        return None
    return ObjectState(counts["count"], counts["min_count"])


@dataclass(slots=True)
class _Draft:
    """An object whose lines are still coming in."""

    number: int
    header: str
    address: int
    size_bytes: int
    kind: str
    comm: tuple[str, int, int, float | None] | None = None
    contents: bytes = b""
    contents_cpu: int | None = None
    crc: int | None = None
    in_backtrace: bool = False
    frames: list[tuple[CodeLocation, int | None]] = field(default_factory=list)


def stream(
    source: Source, *, errors: OnError = "raise", problems: list[ParseError] | None = None
) -> Iterator[UnreferencedObject]:
    """Yield the objects one at a time, in memory that does not grow with the report.

    Raises ParseError at a damaged object, or appends it to ``problems`` with errors="collect"
    and goes on with the next. Lines of a kernel log that are not kmemleak's are passed over.
    """
    damage = Damage(errors, problems)
    known: dict[str, tuple[CodeLocation, int | None]] = {}
    draft: _Draft | None = None
    skipping = False
    terminated = cut = False
    number, line = 0, ""
    for number, line in enumerate(iterate_lines(source), 1):
        if draft is not None and draft.in_backtrace:
            frame = known.get(line)
            if frame is not None:
                draft.frames.append(frame)
                continue
        terminated = terminated or line.endswith("\n")
        bare = undress(line)
        text = bare.strip().removeprefix("kmemleak: ").lstrip()
        if not text:
            continue
        cut = not line.endswith("\n")
        if text.startswith("unreferenced object"):
            if draft is not None:
                yield from _finish(draft, damage)
            draft = _begin(text, damage, number, line)
            skipping = draft is None
            continue
        if skipping or _is_foreign(line, bare):
            continue
        try:
            if draft is None:
                raise ParseError("not a line of a kmemleak object")
            if draft.in_backtrace:
                if len(known) >= _KNOWN_FRAMES_MAX:
                    known.clear()
                # only an unchanged line may be looked up by its raw text later
                frame = _parse_frame(text)
                if line.endswith("\n"):
                    known[line] = frame
                draft.frames.append(frame)
            else:
                _take(draft, text)
        except ParseError as error:
            damage.report(error.message, number, line)
            skipping = draft is not None
            draft = None
    if draft is not None:
        if terminated and cut and not _ends_whole(draft):
            damage.report("object is cut off", number, line)
        else:
            yield from _finish(draft, damage)


def _is_foreign(line: str, bare: str) -> bool:
    """Whether this is a line of a kernel log that is not kmemleak's."""
    return len(bare) < len(line.rstrip()) and not bare.startswith("kmemleak: ") and "\0" not in line


def _begin(text: str, damage: Damage, number: int, line: str) -> _Draft | None:
    match = _HEADER.fullmatch(text)
    if match is None:
        damage.report("header of an object does not parse", number, line)
        return None
    kind = match["kind"] or "object"
    return _Draft(number, line, int(match["address"], 16), int(match["size"]), kind)


def _take(draft: _Draft, text: str) -> None:
    """Book a line between header and backtrace. Raises ParseError where it is none."""
    if draft.comm is None:
        match = _COMM.fullmatch(text)
        if match is None:
            raise ParseError("comm, pid and jiffies do not parse")
        age = None if match["age"] is None else float(match["age"])
        draft.comm = (match["comm"], int(match["pid"]), int(match["jiffies"]), age)
    elif (match := _HEX_LINE.fullmatch(text)) is not None:
        draft.contents += bytes.fromhex(match[1])
    elif (match := _BACKTRACE.fullmatch(text)) is not None:
        draft.in_backtrace = True
        draft.crc = None if match["crc"] is None else int(match["crc"], 16)
    elif (match := _HEX_HEAD.fullmatch(text)) is not None:
        draft.contents_cpu = None if match["cpu"] is None else int(match["cpu"])
    else:
        raise ParseError("neither hex dump nor backtrace")


def _parse_frame(text: str) -> tuple[CodeLocation, int | None]:
    match = _FRAME.fullmatch(text)
    location = None if match is None else parse_code_location(match["location"])
    if match is None or location is None:
        raise ParseError("frame does not parse")
    # two frames of one place: the inlined one has no return address of its own
    if match["address"] is None or (location.offset is None and location.symbol is not None):
        return location, None
    classified = classify_address(match["address"])
    if classified is None or classified[1] is not AddressKind.REAL:
        return location, None
    return location, classified[0]


def _ends_whole(draft: _Draft) -> bool:
    if len(draft.frames) >= _MAX_TRACE:
        return True
    symbol = draft.frames[-1][0].symbol if draft.frames else None
    return symbol is not None and _OUTERMOST.match(symbol) is not None


def _finish(draft: _Draft, damage: Damage) -> Iterator[UnreferencedObject]:
    if draft.comm is None or not draft.in_backtrace:
        damage.report("object has no backtrace", draft.number, draft.header)
        return
    addresses = tuple(address for _, address in draft.frames if address is not None)
    comm, pid, jiffies, age = draft.comm
    yield UnreferencedObject(
        address=draft.address,
        size_bytes=draft.size_bytes,
        kind=draft.kind,
        comm=comm,
        pid=pid,
        jiffies=jiffies,
        age_seconds=age,
        contents=draft.contents,
        contents_cpu=draft.contents_cpu,
        crc=draft.crc,
        frames=tuple(frame for frame, _ in draft.frames),
        frame_addresses=addresses if addresses and len(addresses) == len(draft.frames) else None,
    )
