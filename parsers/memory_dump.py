"""What the kernel logs of its memory when it runs short: show_mem() (__show_mem() from 6.3 on) in
mm/show_mem.c (lib/show_mem.c before), dump_unreclaimable_slab() and dump_tasks() in mm/oom_kill.c.

    foo invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
    Mem-Info:
    active_anon:1000 inactive_anon:1000 isolated_anon:0
     slab_reclaimable:1000 slab_unreclaimable:900000
    Node 0 Normal free:1234kB min:66kB ...
    1048576 pages RAM
    20000 pages reserved
    Unreclaimable slab info:
    Name                      Used          Total
    kmalloc-2k           3400000KB    3400000KB
    [    541]     0   541     1100      223    57344        0             0 foo
    Out of memory: Killed process 541 (foo) total-vm:4400kB, anon-rss:892kB, ...

Counts are pages; the lines of nodes and zones have kB, which gives the page size. Linux 2.6 has
"Mem-info:" and "Active:1 inactive:2 dirty:3 ... slab:4".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kleak.parsers._lines import Source, iterate_lines
from kleak.parsers.kmsg import read_line

_OOM = re.compile(r"(?P<comm>.+) invoked oom-killer: (?P<rest>.*)")
_FAILURE = re.compile(
    r"(?:(?P<comm>\S.*?): )?page allocation (?:failure|stall).*?order:\s?(?P<order>\d+).*"
)
_ORDER = re.compile(r"order=(-?\d+)")
_MEM_INFO = re.compile(r"Mem-[Ii]nfo:")
_COUNTS = re.compile(r"(?:[A-Za-z_]+:\d+(?:#\d+)?[ ,]*)+")
_COUNT = re.compile(r"([A-Za-z_]+):(\d+)")
_KILOBYTES = re.compile(r"([a-z_]+(?:\(anon\)|\(file\))?):(\d+)kB")
_ZONE_PLACE = re.compile(r"(?:Node \d+ )?(?P<zone>\w+) free:\d+kB min:.*")
_NODE_PLACE = re.compile(r"Node \d+ (?:active_anon|\w+):\d+kB .*")
_PAGES = re.compile(
    r"(?P<count>\d+) (?:pages (?P<what>RAM|reserved|of RAM|slab|HighMem(?:/MovableOnly)?|hwpoisoned"
    r"|cma reserved|in swap cache|shared|pagetables)|(?P<reserved>reserved pages)"
    r"|(?P<cache>total pagecache pages)|free pages|pages swap cached)"
)
_SLAB_HEAD = re.compile(r"Unreclaimable slab info:")
_SLAB_NAMES = re.compile(r"Name\s+Used\s+Total")
_SLAB = re.compile(r"(?P<name>\S.*?)\s+(?P<used>\d+)KB\s+(?P<total>\d+)KB")
_TASK = re.compile(
    r"\[\s*(?P<pid>\d+)\]\s+(?P<uid>\d+)\s+(?P<tgid>\d+)\s+(?P<vm>\d+)\s+(?P<rss>\d+)\s+"
    r"(?P<rest>(?:-?\d+\s+){2,6})(?P<name>\S.*)"
)
_KILLED = re.compile(
    r"(?P<why>Out of memory|Memory cgroup out of memory"
    r"|Out of memory \(oom_kill_allocating_task\))?"
    r"(?:[:,] )?[Kk]ill(?:ed|ing)? process (?P<pid>\d+)(?:,? (?:\(|UID \d+[,;]? \(?)?)?"
    r"(?P<comm>[^)]*)\)?,?(?P<rest>.*)"
)
_CGROUP_LIMIT = re.compile(r"memory: usage (\d+)kB, limit (\d+)kB, failcnt \d+")
_CGROUP = re.compile(
    r"(?:Memory cgroup stats for (?P<path>\S+?):.*"
    r"|Task in (?P<task>\S+) killed as a result of limit of (?P<limit>\S+)"
    r"|oom-kill:constraint=CONSTRAINT_MEMCG.*)"
)


@dataclass(frozen=True, slots=True)
class DumpedSlab:
    """One cache of "Unreclaimable slab info". Sizes are bytes."""

    name: str
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class DumpedTask:
    """One task of the table. ``rss_pages`` counts its resident pages."""

    pid: int
    name: str
    rss_pages: int


@dataclass(frozen=True, slots=True)
class MemoryDump:
    """One dump. ``counts`` are the pages of "Mem-Info:" and of the lines behind it, by the
    kernel's names, "pages RAM" and "pages reserved" among them. ``zones`` are the free kB of each.

    ``reason`` is "oom", "allocation failure" or "shown". ``page_bytes`` is None where the dump
    does not tell. ``cgroup_limit_bytes`` is there where a cgroup ran out, not the machine.
    """

    time_seconds: float | None
    reason: str
    comm: str | None
    order: int | None
    counts: dict[str, int]
    slabs: tuple[DumpedSlab, ...] = ()
    tasks: tuple[DumpedTask, ...] = ()
    killed: str | None = None
    page_bytes: int | None = None
    cgroup: str | None = None
    cgroup_limit_bytes: int | None = None
    line_number: int = field(default=0, compare=False)


@dataclass(slots=True)
class _Draft:
    number: int
    time_seconds: float | None
    reason: str
    comm: str | None = None
    order: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    slabs: dict[str, DumpedSlab] = field(default_factory=dict)
    tasks: list[DumpedTask] = field(default_factory=list)
    killed: str | None = None
    zone_free_kilobytes: int = 0
    in_counts: bool = False
    in_slabs: bool = False
    cgroup: str | None = None
    cgroup_limit_bytes: int | None = None

    def build(self) -> MemoryDump:
        return MemoryDump(
            self.time_seconds, self.reason, self.comm, self.order, self.counts,
            tuple(self.slabs.values()), tuple(self.tasks), self.killed, self._page_bytes(),
            self.cgroup, self.cgroup_limit_bytes, self.number,
        )  # fmt: skip

    def _page_bytes(self) -> int | None:
        """The page size, by the free memory that stands there in kB and in pages."""
        free = self.counts.get("free", 0)
        if free < 64 or not self.zone_free_kilobytes:
            return None
        exact = self.zone_free_kilobytes * 1024 / free
        sizes = (4096, 8192, 16384, 32768, 65536)
        best = min(sizes, key=lambda size: abs(size - exact))
        return best if abs(best - exact) <= best / 4 else None


def begins(text: str) -> bool:
    """Whether a line of the log begins a dump."""
    return any(p.fullmatch(text) for p in (_OOM, _FAILURE, _MEM_INFO, _SLAB_HEAD))


def belongs(text: str) -> bool:
    """Whether a line of the log can be one of a dump that has begun."""
    patterns = (
        _COUNTS, _ZONE_PLACE, _NODE_PLACE, _PAGES, _SLAB_NAMES, _SLAB, _TASK, _KILLED,
        _CGROUP_LIMIT, _CGROUP,
    )  # fmt: skip
    return any(pattern.fullmatch(text) is not None for pattern in patterns)


def stream(source: Source) -> Iterator[MemoryDump]:
    """Yield the dumps in a kernel log one at a time; other lines are passed over."""
    draft: _Draft | None = None
    for number, line in enumerate(iterate_lines(source), 1):
        log = read_line(line, number)
        text = log.text.strip()
        begun = _begin(text, number, log.time_seconds)
        if begun is not None and (draft is None or _is_next(draft, begun, text)):
            if draft is not None:
                yield from _finish(draft)
            draft = begun
        elif draft is not None:
            _take(draft, text)
    if draft is not None:
        yield from _finish(draft)


def parse(source: Source) -> tuple[MemoryDump, ...]:
    """All dumps, in order."""
    return tuple(stream(source))


def _finish(draft: _Draft) -> Iterator[MemoryDump]:
    if draft.counts or draft.slabs or draft.tasks or draft.killed or draft.cgroup:
        yield draft.build()


def _begin(text: str, number: int, seconds: float | None) -> _Draft | None:
    match = _OOM.fullmatch(text)
    if match is not None:
        order = _ORDER.search(match["rest"])
        return _Draft(number, seconds, "oom", match["comm"], int(order[1]) if order else None)
    match = _FAILURE.fullmatch(text)
    if match is not None:
        return _Draft(number, seconds, "allocation failure", match["comm"], int(match["order"]))
    if _MEM_INFO.fullmatch(text) or _SLAB_HEAD.fullmatch(text):
        draft = _Draft(number, seconds, "shown")
        _take(draft, text)
        return draft
    return None


def _is_next(draft: _Draft, begun: _Draft, text: str) -> bool:
    """Whether this begins another dump, and is not the next part of the one that is open."""
    if begun.reason != "shown":
        return bool(draft.counts or draft.slabs or draft.tasks or draft.killed) or (
            begun.reason != draft.reason
        )
    if _SLAB_HEAD.fullmatch(text):
        repeated = bool(draft.slabs)
        if not repeated:
            _take(draft, text)
        return repeated
    repeated = bool(draft.counts)
    if not repeated:
        _take(draft, text)
    return repeated


def _take(draft: _Draft, text: str) -> None:
    if _MEM_INFO.fullmatch(text):
        draft.in_counts = True
    elif _SLAB_HEAD.fullmatch(text):
        draft.in_slabs, draft.in_counts = True, False
    elif draft.in_slabs and (match := _SLAB.fullmatch(text)) is not None:
        slab = DumpedSlab(match["name"], int(match["used"]) * 1024, int(match["total"]) * 1024)
        draft.slabs.setdefault(slab.name, slab)
    elif _ZONE_PLACE.fullmatch(text) is not None:
        draft.zone_free_kilobytes += int(dict(_KILOBYTES.findall(text)).get("free", 0))
    elif (match := _PAGES.fullmatch(text)) is not None:
        what = match["what"] or ("reserved" if match["reserved"] else match["cache"])
        if what is not None:
            draft.counts.setdefault(f"pages {what.removeprefix('of ')}", int(match["count"]))
    elif draft.in_counts and _COUNTS.fullmatch(text) is not None:
        for name, value in _COUNT.findall(text):
            draft.counts.setdefault(name.lower(), int(value))
    elif (match := _TASK.fullmatch(text)) is not None:
        draft.tasks.append(DumpedTask(int(match["pid"]), match["name"], int(match["rss"])))
    elif (match := _CGROUP_LIMIT.fullmatch(text)) is not None:
        draft.cgroup = draft.cgroup or "a cgroup"
        draft.cgroup_limit_bytes = int(match[2]) * 1024
    elif (match := _CGROUP.fullmatch(text)) is not None:
        draft.cgroup = match["path"] or match["limit"] or draft.cgroup or "a cgroup"
    elif (match := _KILLED.fullmatch(text)) is not None:
        draft.killed = draft.killed or f"{match['comm'].strip('() ')} (pid {match['pid']})"
        if (match["why"] or "").startswith("Memory cgroup"):
            draft.cgroup = draft.cgroup or "a cgroup"
