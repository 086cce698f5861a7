"""Who holds most, by each report that tells: the first thing that a lone report can say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kleak.frames.stacks import split_allocator
from kleak.model.session import Frame
from kleak.parsers.code_location import CodeLocation
from kleak.snapshots.places import Places
from kleak.snapshots.slab_usage import slab_usage
from kleak.snapshots.snapshot import Snapshot

TOP = 5
# Regions of address space alone: the pages in them are counted as Percpu.
_ADDRESS_SPACE = "pcpu_get_vm_areas"


@dataclass(frozen=True, slots=True)
class Consumer:
    """One holder: what it holds, its part of all that the report has, in per cent.

    ``amount`` is bytes, or what ``Ranking.unit`` says. ``detail`` is the count of objects and the
    like. ``module`` is that of the code, where the report names one.
    """

    name: str
    amount: int
    share_percent: float
    detail: str = ""
    module: str | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """The greatest holders of one report, the greatest first. ``left_out`` are how many more.

    ``unit`` is "bytes", or what is counted where a report has no sizes.
    """

    report: str
    consumers: tuple[Consumer, ...]
    total: int
    left_out: int = 0
    unit: str = "bytes"


def rankings(shot: Snapshot) -> list[Ranking]:
    """A ranking for each report of the snapshot that tells who holds what."""
    places = Places([shot])
    found = [
        _slab(shot),
        _kmemleak(shot, places),
        _allocinfo(shot),
        _page_stacks(shot, places),
        *_alloc_traces(shot, places),
        _vmallocinfo(shot, places),
        *_counted_stacks(shot, places),
        _processes(shot),
        _tasks(shot),
        _free_pages(shot),
        _blocks(shot),
        _cgroup(shot),
    ]
    return [ranking for ranking in found if ranking is not None]


def place_of(locations: Sequence[CodeLocation], places: Places) -> tuple[str, str | None]:
    """The first frame that is no allocator, in words, and its module."""
    frames = places.frames(locations)
    _, rest = split_allocator(frames)
    return (
        describe((rest or frames)[0])
        if frames
        else ("an unknown place (no stack was printed)", None)
    )


def describe(frame: Frame) -> tuple[str, str | None]:
    """A frame as kernel people write it, and its module."""
    if frame.symbol is None:
        return f"{frame.offset:#x}", frame.module
    text = frame.symbol + (f"+{frame.offset:#x}" if frame.offset else "")
    if frame.module is not None:
        text += f" [{frame.module}]"
    if frame.source is not None:
        text += f" {frame.source.file}:{frame.source.line}"
    return text, frame.module


@dataclass(slots=True)
class _Held:
    amount: int = 0
    count: int = 0
    module: str | None = None


def _rank(
    report: str,
    held: dict[str, _Held],
    noun: str,
    *,
    unit: str = "bytes",
    total: int | None = None,
) -> Ranking | None:
    whole = sum(one.amount for one in held.values()) if total is None else total
    rows = sorted(
        ((name, one) for name, one in held.items() if one.amount > 0),
        key=lambda row: (-row[1].amount, row[0]),
    )
    if not rows:
        return None
    consumers = tuple(
        Consumer(
            name,
            one.amount,
            100 * one.amount / whole if whole else 0.0,
            f"{one.count:,} {noun if one.count != 1 else noun.removesuffix('s')}"
            if one.count
            else "",
            one.module,
        )
        for name, one in rows[:TOP]
    )
    return Ranking(report, consumers, whole, len(rows) - len(consumers), unit)


def _slab(shot: Snapshot) -> Ranking | None:
    usage = slab_usage(shot)
    if usage is None:
        return None
    held = {
        cache.name: _Held(cache.size_bytes, cache.active_objects or 0) for cache in usage.caches
    }
    return _rank(usage.report, held, "objects")


def _kmemleak(shot: Snapshot, places: Places) -> Ranking | None:
    if shot.kmemleak is None:
        return None
    held: dict[str, _Held] = defaultdict(_Held)
    for item in shot.kmemleak.objects:
        name, module = place_of(item.frames, places)
        one = held[name]
        one.amount += item.size_bytes
        one.count += 1
        one.module = module
    return _rank("kmemleak", held, "objects")


def _allocinfo(shot: Snapshot) -> Ranking | None:
    if shot.allocinfo is None:
        return None
    held: dict[str, _Held] = defaultdict(_Held)
    for site in shot.allocinfo.sites:
        module = "" if site.module is None else f" [{site.module}]"
        one = held[f"{site.function}{module} {site.file}:{site.line}"]
        one.amount += site.size_bytes
        one.count += site.calls
        one.module = site.module
    total = sum(one.amount for one in held.values() if one.amount > 0)
    return _rank("allocinfo", held, "allocations", total=total)


def _page_stacks(shot: Snapshot, places: Places) -> Ranking | None:
    if shot.page_stacks is None:
        return None
    held: dict[str, _Held] = defaultdict(_Held)
    for stack in shot.page_stacks:
        name, module = place_of(stack.frames, places)
        one = held[name]
        one.amount += stack.pages * shot.page_bytes
        one.count += stack.pages
        one.module = module
    return _rank("page_owner", held, "pages")


def _alloc_traces(shot: Snapshot, places: Places) -> Iterator[Ranking | None]:
    sizes = {cache.name: cache.object_size_bytes for cache in
             (() if shot.slabinfo is None else shot.slabinfo.caches)}  # fmt: skip
    for cache, traces in (shot.alloc_traces or {}).items():
        size = sizes.get(cache) or _size_by_name(cache)
        held: dict[str, _Held] = defaultdict(_Held)
        for trace in traces.traces:
            locations = trace.frames or (() if trace.caller is None else (trace.caller,))
            name, module = place_of(locations, places)
            one = held[name]
            one.amount += trace.count * (size or 1)
            one.count += trace.count
            one.module = module
        name = "alloc_traces" if cache == "unnamed" else f"alloc_traces of {cache}"
        yield _rank(name, held, "objects", unit="bytes" if size else "objects")


def _size_by_name(cache: str) -> int | None:
    """The size that a cache of kmalloc has in its name."""
    digits = cache.rpartition("-")[2]
    if not cache.startswith(("kmalloc-", "size-")):
        return None
    if digits.isdigit():
        return int(digits)
    return int(digits[:-1]) * 1024 if digits[:-1].isdigit() and digits.endswith("k") else None


def _vmallocinfo(shot: Snapshot, places: Places) -> Ranking | None:
    held: dict[str, _Held] = defaultdict(_Held)
    if shot.crash_regions is not None:
        total = sum(size for _, size in shot.crash_regions.regions)
        held["all regions"] = _Held(total, len(shot.crash_regions.regions))
        return _rank("crash kmem -v", held, "regions")
    if shot.vmallocinfo is None:
        return None
    for region in shot.vmallocinfo.regions:
        if not region.is_allocation:
            continue
        if region.caller is None:
            name, module = "no caller recorded", None
        elif region.caller.symbol == _ADDRESS_SPACE and region.pages is None:
            continue
        else:
            name, module = describe(places.frame(region.caller))
        one = held[name]
        pages = region.pages
        one.amount += region.size_bytes if pages is None else pages * shot.page_bytes
        one.count += 1
        one.module = module
    return _rank("vmallocinfo", held, "regions")


def address_space_bytes(shot: Snapshot) -> int:
    """What vmallocinfo has of address space for per-CPU memory, whose pages count as Percpu."""
    regions = () if shot.vmallocinfo is None else shot.vmallocinfo.regions
    return sum(
        region.size_bytes
        for region in regions
        if region.caller is not None
        and region.caller.symbol == _ADDRESS_SPACE
        and region.pages is None
    )


def _counted_stacks(shot: Snapshot, places: Places) -> Iterator[Ranking | None]:
    for tool, report in shot.counted_stacks.items():
        sized = any(stack.size_bytes is not None for stack in report.stacks)
        held: dict[str, _Held] = defaultdict(_Held)
        for stack in report.stacks:
            name, module = place_of(stack.frames, places)
            one = held[name]
            one.amount += (stack.size_bytes if sized else stack.count) or 0
            one.count += stack.count or 0
            one.module = module
        yield _rank(tool, held, "allocations", unit="bytes" if sized else "allocations")


def _processes(shot: Snapshot) -> Ranking | None:
    if shot.processes is None:
        return None
    held: dict[str, _Held] = defaultdict(_Held)
    for process in shot.processes.processes:
        one = held[process.name.split()[0] if process.name.split() else "?"]
        one.amount += process.rss_bytes
        one.count += 1
    return _rank("processes", held, "processes")


def _tasks(shot: Snapshot) -> Ranking | None:
    if shot.dump is None or not shot.dump.tasks:
        return None
    held: dict[str, _Held] = defaultdict(_Held)
    for task in shot.dump.tasks:
        one = held[task.name]
        one.amount += task.rss_pages * shot.page_bytes
        one.count += 1
    return _rank("tasks of the dump", held, "tasks")


def _free_pages(shot: Snapshot) -> Ranking | None:
    if shot.buddyinfo is None:
        return None
    held = {
        f"free in node {zone.node} zone {zone.name}": _Held(
            zone.free_pages * shot.page_bytes, zone.free_pages
        )
        for zone in shot.buddyinfo.zones
    }
    return _rank("buddyinfo", held, "pages")


def _blocks(shot: Snapshot) -> Ranking | None:
    report = shot.pagetypeinfo
    if report is None or report.pages_per_block is None:
        return None
    block = report.pages_per_block * shot.page_bytes
    held = {f"blocks of type {name}": _Held(n * block, n) for name, n in report.blocks.items()}
    return _rank("pagetypeinfo", held, "blocks")


def _cgroup(shot: Snapshot) -> Ranking | None:
    if shot.memory_stat is None:
        return None
    figures = Counter(shot.memory_stat.bytes_by_name)
    apart = ("anon", "file", "kernel_stack", "pagetables", "percpu", "sock", "vmalloc",
             "slab_reclaimable", "slab_unreclaimable")  # fmt: skip
    held = {name: _Held(figures[name]) for name in apart if figures[name]}
    return _rank("memory.stat", held, "")
