"""/sys/kernel/debug/page_owner and page_owner_stacks/show_stacks, printed by print_page_owner()
and stack_print() in mm/page_owner.c.

    Page allocated via order 2, mask 0xcc0(GFP_KERNEL), pid 300, tgid 300 (insmod), ts 1234 ns
    PFN 0x7f2c type Unmovable Block 63 type Unmovable Flags 0xfffffc0000000()
     lk_pages+0x1c/0x30 [lk]
     do_one_initcall+0x5b/0x320

pid, tgid and ts are missing in 5.10; the PFN is decimal before 6.12; before 4.19 or so frames are
"[<ffffffff8116147e>] symbol+0x1/0x2". The stacks form, from 6.12 on, has frames alone and under
them "nr_base_pages: N", the pages that are outstanding. tools/mm/page_owner_sort puts
"457823 times:" or "457823 times, 457823 pages:" in front of a record that stands for so many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.code_location import CodeLocation, parse_code_location
from kleak.parsers.errors import ParseError

_HEAD = re.compile(
    r"Page allocated via order (?P<order>\d+), mask (?P<mask>0x[0-9a-f]+)"
    r"(?:\((?P<gfp>[^)]*)\))?(?P<rest>(?:,.*)?)"
)
_PID = re.compile(r", pid (-?\d+)")
_TGID = re.compile(r", tgid (-?\d+) \((.*?)\)(?=, ts|$)")
_ALLOCATED = re.compile(r", ts (\d+) ns")
_FREED = re.compile(r", free_ts (\d+) ns")
_TIMES = re.compile(r"(?P<times>\d+) times(?:, (?P<pages>\d+) pages)?(?:,.*)?:")
_ADDRESS = re.compile(r"\[<(?:0x)?[0-9a-f]{8,16}>\] +")
_PFN = re.compile(r"PFN (?P<pfn>0x[0-9a-f]+|\d+) type (?P<type>\S+) Block .*Flags .*")
_PAGES = re.compile(r"(?:nr_base_pages|stack_count): (\d+)")
_NOTES = ("Page has been migrated", "Charged ", "Page is ", "Slab cache page", "handle:")


@dataclass(frozen=True, slots=True)
class OwnedPage:
    """One block of pages and who allocated it. ``order`` is that of the block.

    Times are nanoseconds since boot. None where the kernel does not print the field.
    ``times`` and ``sorted_pages`` are page_owner_sort's: blocks alike, and pages in all of them.
    ``frames`` is innermost first; the first are the page allocator's own.
    """

    order: int
    gfp_mask: int
    gfp_flags: str | None
    pid: int | None
    tgid: int | None
    comm: str | None
    allocated_at_ns: int | None
    freed_at_ns: int | None
    pfn: int | None
    migrate_type: str | None
    frames: tuple[CodeLocation, ...]
    times: int = 1
    sorted_pages: int | None = None

    @property
    def pages(self) -> int:
        """Base pages in the block, or in all blocks that the record stands for."""
        return (self.times << self.order) if self.sorted_pages is None else self.sorted_pages


@dataclass(frozen=True, slots=True)
class StackPages:
    """One stack of the stacks form. ``pages`` are the base pages outstanding from it."""

    pages: int
    frames: tuple[CodeLocation, ...]


@dataclass(frozen=True, slots=True)
class PageOwner:
    """A whole raw report, in the order of page frames."""

    pages: tuple[OwnedPage, ...]
    problems: tuple[ParseError, ...] = ()


@dataclass(frozen=True, slots=True)
class PageOwnerStacks:
    """A whole report of the stacks form."""

    stacks: tuple[StackPages, ...]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> PageOwner:
    """Parse a raw report. With errors="collect" damaged records are skipped and kept."""
    problems: list[ParseError] = []
    pages = tuple(stream(source, errors=errors, problems=problems))
    return PageOwner(pages, tuple(problems))


def parse_stacks(source: Source, *, errors: OnError = "raise") -> PageOwnerStacks:
    """Parse a report of the stacks form. With errors="collect" damaged records are skipped."""
    problems: list[ParseError] = []
    stacks = tuple(stream_stacks(source, errors=errors, problems=problems))
    return PageOwnerStacks(stacks, tuple(problems))


@dataclass(slots=True)
class _Draft:
    number: int
    line: str
    head: re.Match[str]
    times: re.Match[str] | None = None
    place: re.Match[str] | None = None
    frames: list[CodeLocation] = field(default_factory=list)


def stream(
    source: Source, *, errors: OnError = "raise", problems: list[ParseError] | None = None
) -> Iterator[OwnedPage]:
    """Yield the records of the raw form one at a time, in memory that does not grow.

    Raises ParseError at a damaged record, or appends it to ``problems`` with errors="collect".
    """
    damage = Damage(errors, problems)
    draft: _Draft | None = None
    times: re.Match[str] | None = None
    skipping = False
    for number, line in enumerate(iterate_lines(source), 1):
        text = undress(line).strip()
        counted = _TIMES.fullmatch(text)
        if counted is not None:
            if draft is not None:
                yield from _finish(draft, damage)
            draft, skipping, times = None, False, counted
        elif text.startswith("Page allocated via"):
            if draft is not None:
                yield from _finish(draft, damage)
            head = _HEAD.fullmatch(text)
            draft, skipping = None, head is None
            if head is None:
                damage.report("head of a page does not parse", number, line)
            else:
                draft = _Draft(number, line, head, times)
            times = None
        elif not text:
            if draft is not None:
                yield from _finish(draft, damage)
            draft, skipping = None, False
        elif not skipping:
            problem = _take(draft, text)
            if problem is not None:
                damage.report(problem, number, line)
                draft, skipping = None, True
    if draft is not None:
        yield from _finish(draft, damage)


def _take(draft: _Draft | None, text: str) -> str | None:
    """Book a line of a record. Returns what is wrong with it, if anything is."""
    if draft is None:
        return "not a page_owner record"
    if draft.place is None and not draft.frames:
        draft.place = _PFN.fullmatch(text)
        if draft.place is not None:
            return None
        if draft.times is None or text.startswith("PFN"):
            return "PFN line does not parse"
    if text.startswith(_NOTES):
        return None
    location = parse_code_location(_ADDRESS.sub("", text, count=1))
    if location is None:
        return "frame does not parse"
    draft.frames.append(location)
    return None


def _finish(draft: _Draft, damage: Damage) -> Iterator[OwnedPage]:
    if draft.place is None and draft.times is None:
        damage.report("record has no PFN line", draft.number, draft.line)
        return
    rest = draft.head["rest"]
    pid, tgid = _PID.search(rest), _TGID.search(rest)
    allocated, freed = _ALLOCATED.search(rest), _FREED.search(rest)
    yield OwnedPage(
        order=int(draft.head["order"]),
        gfp_mask=int(draft.head["mask"], 16),
        gfp_flags=draft.head["gfp"],
        pid=None if pid is None else int(pid[1]),
        tgid=None if tgid is None else int(tgid[1]),
        comm=None if tgid is None else tgid[2],
        allocated_at_ns=None if allocated is None else int(allocated[1]),
        freed_at_ns=None if freed is None else int(freed[1]),
        pfn=None if draft.place is None else int(draft.place["pfn"], 0),
        migrate_type=None if draft.place is None else draft.place["type"],
        frames=tuple(draft.frames),
        times=1 if draft.times is None else int(draft.times["times"]),
        sorted_pages=None
        if draft.times is None or draft.times["pages"] is None
        else int(draft.times["pages"]),
    )


def stream_stacks(
    source: Source, *, errors: OnError = "raise", problems: list[ParseError] | None = None
) -> Iterator[StackPages]:
    """Yield the records of the stacks form one at a time.

    Raises ParseError at a damaged record, or appends it to ``problems`` with errors="collect".
    """
    damage = Damage(errors, problems)
    frames: list[CodeLocation] = []
    skipping = False
    number, line = 0, ""
    for number, line in enumerate(iterate_lines(source), 1):
        text = undress(line).strip()
        if not text:
            if frames:
                damage.report("stack has no page count", number, line)
            frames, skipping = [], False
            continue
        pages = _PAGES.fullmatch(text)
        if pages is not None:
            if not skipping:
                yield StackPages(int(pages[1]), tuple(frames))
            frames, skipping = [], False
            continue
        if skipping or text.startswith(_NOTES):
            continue
        location = parse_code_location(_ADDRESS.sub("", text, count=1))
        if location is None:
            damage.report("neither a frame nor a page count", number, line)
            frames, skipping = [], True
            continue
        frames.append(location)
    if frames:
        damage.report("stack has no page count", number, line)
