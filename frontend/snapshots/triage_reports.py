"""What each report says by itself of what is abnormal: one function a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from kleak.parsers import kmsg
from kleak.snapshots.consumers import Ranking, address_space_bytes, place_of
from kleak.snapshots.consumers import describe as describe_frame
from kleak.snapshots.places import Places
from kleak.snapshots.slab_usage import slab_usage
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.triage_finding import AGAIN, TriageFinding
from kleak.snapshots.witnesses import log as log_witness
from kleak.snapshots.witnesses.slabinfo import describe, is_reclaimable
from kleak.units import size

_TOP = 5
# A lone report has no total to compare with: so much, and half of all that it lists, stands out.
LARGE_BYTES = 256 << 20
LARGE_SHARE = 50.0
# What slab may hold beyond its caches before it is said to, per cent of MemTotal.
LARGE_KMALLOC_SHARE = 5.0
SMEM_SHARE = 20.0
LOW_AVAILABLE = 0.10
MANY_CGROUPS = 2000
_TRACE = "kleak run --scope '*' -- CMD"
_ASK_RANKING = {
    "allocinfo": "watch 'sort -n /proc/allocinfo | tail'; kleak collect, to see whether it grows",
    "page_owner": AGAIN,
    "memleak": "run it again with -o 60000, to leave out what is only young",
    "bpftrace": "pair it with a probe on the free, or use kleak run: this counts allocations alone",
    "vmallocinfo": AGAIN,
    "crash kmem -v": "p vmap_area_list; search VM_STRUCT for its caller",
}


def judge_reports(
    shot: Snapshot, *, standings_abnormal: frozenset[str], ranked: Sequence[Ranking]
) -> Iterator[TriageFinding]:
    """All findings that need no class of /proc/meminfo."""
    yield from _dump(shot)
    yield from _kmemleak(shot)
    yield from _log(shot)
    yield from _references(shot)
    yield from _slab(shot, standings_abnormal)
    yield from _large_kmalloc(shot)
    yield from _vmalloc(shot)
    yield from _allocinfo_of_gone_modules(shot)
    yield from _top_holders(ranked)
    yield from _free(shot)
    yield from _smem(shot)
    yield from _cgroups(shot)
    yield from _buddy(shot)
    yield from _lists_alone(shot)


def _dump(shot: Snapshot) -> Iterator[TriageFinding]:
    dump = shot.dump
    if dump is None:
        return
    who = "" if dump.comm is None else f" for {dump.comm}"
    order = "" if dump.order is None else f", order {dump.order}"
    what = {
        "oom": "the kernel ran out of memory",
        "allocation failure": "an allocation failed",
    }.get(dump.reason, "the kernel showed its memory")
    says = f"{what}{who}{order}"
    if dump.order is not None and dump.order >= 4:
        says += (
            f" ({size(shot.page_bytes << dump.order)} in one piece, which fragmentation may refuse)"
        )
    if dump.killed is not None:
        says += f"; killed {dump.killed}, which need not be who took the memory"
    if dump.cgroup_limit_bytes is not None or dump.cgroup is not None:
        limit = dump.cgroup_limit_bytes
        of = "" if limit is None else f" of {size(limit)}"
        says += f"; it was the limit{of} of {dump.cgroup}, not the machine's memory"
    if dump.tasks:
        total = sum(task.rss_pages for task in dump.tasks) * shot.page_bytes
        says += f"; all {len(dump.tasks)} tasks together hold {size(total)}"
    yield TriageFinding(dump.reason != "shown", "memory dump", says,
                        "grep -e 'Mem-Info' -A 60 of the whole log, if this is not all of it"
                        if not dump.counts else None)  # fmt: skip
    yield from _outside_counts(shot)


def _outside_counts(shot: Snapshot) -> Iterator[TriageFinding]:
    """Memory that a dump counts nowhere: vmalloc, per-CPU memory, pages of drivers."""
    report = shot.meminfo
    if report is None or shot.meminfo_from != "memory dump" or not report.mem_total_bytes:
        return
    slab = report.slab_bytes or 0
    cached = max((report.cached_bytes or 0) - (report.shmem_bytes or 0), 0)
    named = (
        (report.mem_free_bytes or 0) + slab + cached + (report.anon_pages_bytes or 0)
        + (report.shmem_bytes or 0) + (report.page_tables_bytes or 0)
    )  # fmt: skip
    rest = report.mem_total_bytes - named
    share = 100 * rest / report.mem_total_bytes
    if report.mem_free_bytes is None or report.slab_bytes is None or share < 25:
        return
    says = (
        f"{size(rest)} ({share:.0f} % of all memory) is in none of the dump's counts: vmalloc, "
        "per-CPU memory, huge pages, a balloon, or pages that drivers took"
    )
    yield TriageFinding(True, "outside of the counts", says, "grep -e Vmalloc -e Percpu -e Huge "
                        "/proc/meminfo; boot with page_owner=on")  # fmt: skip


def _kmemleak(shot: Snapshot) -> Iterator[TriageFinding]:
    damaged = shot.damaged.get("kmemleak", 0)
    if shot.kmemleak is None:
        why = shot.missing.get("kmemleak")
        if damaged:
            says = "objects are reported, and none of them could be read whole"
            yield TriageFinding(True, "kmemleak", says, "cat /sys/kernel/debug/kmemleak, again")
        elif why is not None:
            ask = "a kernel with CONFIG_DEBUG_KMEMLEAK tells leaks by reachability"
            yield TriageFinding(False, "kmemleak", why, ask, missing=True)
        return
    objects = shot.kmemleak.objects
    if not objects:
        if damaged or shot.kmemleak.problems:
            says = "objects are reported, and none of them could be read whole"
            yield TriageFinding(True, "kmemleak", says, "cat /sys/kernel/debug/kmemleak, again")
            return
        says = "nothing reported" + ("" if shot.scanned else ", and nobody asked for a scan")
        yield TriageFinding(False, "kmemleak", says, "sudo kleak triage --scan")
        return
    places = Places([shot])
    groups: Counter[str] = Counter()
    for item in objects:
        groups[place_of(item.frames, places)[0]] += 1
    held = sum(item.size_bytes for item in objects)
    noun = "1 object" if len(objects) == 1 else f"{len(objects)} objects"
    titles = ", ".join(f"memory leak in {name} ({n})" for name, n in groups.most_common(_TOP))
    more = f" and {len(groups) - _TOP} more places" if len(groups) > _TOP else ""
    says = f"{noun} ({size(held)}) that nothing points to: {titles}{more}"
    if shot.kmemleak.problems:
        count = len(shot.kmemleak.problems)
        says += f"; {count} more could not be read"
    ask = "sudo kleak collect --scan DIR; kleak analyze DIR"
    yield TriageFinding(True, "kmemleak", says, ask)


def _log(shot: Snapshot) -> Iterator[TriageFinding]:
    for suspect in log_witness.judge([shot]):
        owner = suspect.frames[0].module if suspect.frames else None
        for finding in suspect.findings:
            says = finding.says
            if suspect.frames:
                says = f"{describe_frame(suspect.frames[0])[0]}: {says}"
            ask = f"sudo kleak module {owner or 'NAME, with the module that made it'}"
            yield TriageFinding(True, "kernel log", says, ask)
    for note in log_witness.notes([shot]):
        tracker = None
        if "unregister_netdevice" in note:
            tracker = "a kernel with CONFIG_NET_DEV_REFCNT_TRACKER logs who holds it"
        yield TriageFinding(True, "kernel log", note.removeprefix("kernel log: "), tracker)
    for line in shot.log or ():
        if isinstance(line, kmsg.KmemleakSuspects):
            noun = "suspect" if line.count == 1 else "suspects"
            says = f"kmemleak reported {line.count} new {noun}"
            yield TriageFinding(True, "kernel log", says, "cat /sys/kernel/debug/kmemleak")
    if shot.log == () and shot.dump is None:
        says = "no line in it tells of memory that was left or has run out"
        yield TriageFinding(False, "kernel log", says)


def _references(shot: Snapshot) -> Iterator[TriageFinding]:
    places = Places([shot])
    for reference in shot.references[:_TOP]:
        frames = places.frames(reference.frames)
        taker = next((frame for frame in frames if frame.module is not None), None)
        first = reference.frames[0] if reference.frames else None
        name = "nobody known" if first is None else place_of([first], places)[0]
        if taker is not None:
            of = next(one for one, frame in zip(reference.frames, frames, strict=True)
                      if frame is taker)  # fmt: skip
            name = place_of([of], places)[0]
        says = (
            f"{reference.users} of {reference.total} references to {reference.name} that were not "
            f"given back were taken in {name}"
        )
        yield TriageFinding(True, "ref_tracker", says, f"look for the missing put behind {name}")


def _slab(shot: Snapshot, abnormal: frozenset[str]) -> Iterator[TriageFinding]:
    """The largest caches; abnormal where there is no meminfo and one outweighs all others."""
    usage = slab_usage(shot)
    shown = largest_caches(shot)
    if usage is None or shown is None or not abnormal.isdisjoint(("SUnreclaim", "Slab")):
        return
    total = usage.total_bytes
    top = usage.caches[0]
    share = 100 * top.size_bytes / total if total else 0.0
    stands_out = (
        share >= LARGE_SHARE and top.size_bytes >= LARGE_BYTES and not is_reclaimable(top.name)
    )
    says = f"largest caches: {shown}"
    if usage.report == "slabinfo" and shot.known_page_bytes is None:
        says += f" (with pages of {size(shot.page_bytes)}; give --page-size where they have others)"
    if stands_out:
        listed = "all slab" if usage.whole else "what is listed"
        says += f"; {top.name} has {share:.0f} % of {listed}"
        # a cgroup's own copy of a cache, on kernels that had these, has the cgroup in brackets
        name = top.name.partition("(")[0]
        ask = (
            f"boot with slub_debug=U,{name} and read /sys/kernel/debug/slab/{name}/"
            f"alloc_traces; or {_TRACE}"
        )
        yield TriageFinding(True, usage.report, says, ask)
    else:
        reclaimable = is_reclaimable(top.name) and share >= LARGE_SHARE
        says += f"; {top.name} is given back when memory is short" if reclaimable else ""
        yield TriageFinding(False, usage.report, says, AGAIN, noted=True)


def largest_caches(shot: Snapshot) -> str | None:
    """The largest slab caches with what they hold, in words; None where no report tells."""
    usage = slab_usage(shot)
    if usage is None or not usage.caches:
        return None
    return ", ".join(
        f"{describe(cache.name, shot.slab_aliases)} {size(cache.size_bytes)}"
        for cache in usage.caches[:_TOP]
    )


def _large_kmalloc(shot: Snapshot) -> Iterator[TriageFinding]:
    """Large kmalloc (beyond 8 kB) is counted as slab but is in no cache."""
    usage = slab_usage(shot)
    report = shot.meminfo
    if usage is None or report is None or report.slab_bytes is None or shot.meminfo_from:
        return
    large = report.slab_bytes - usage.total_bytes
    total = report.mem_total_bytes
    if not total or 100 * large / total < LARGE_KMALLOC_SHARE:
        return
    if not usage.whole or usage.report != "slabinfo":
        says = (
            f"{size(large)} of Slab is in none of the caches listed here, which are not all of them"
        )
        yield TriageFinding(False, "slab not listed", says, "sudo cat /proc/slabinfo, the whole",
                            missing=True)  # fmt: skip
        return
    says = (
        f"{size(large)} of Slab is in no cache of /proc/slabinfo: kmalloc of more than 8 kB, "
        "which takes whole pages"
    )
    yield TriageFinding(True, "large kmalloc", says, _TRACE)


def _vmalloc(shot: Snapshot) -> Iterator[TriageFinding]:
    if shot.vmallocinfo is None:
        why = shot.missing.get("vmallocinfo")
        if why is not None:
            yield TriageFinding(False, "vmallocinfo", why, "sudo kleak triage", missing=True)
        return
    allocations = [region for region in shot.vmallocinfo.regions if region.is_allocation]
    lost = [
        region
        for region in allocations
        if region.caller is not None and region.caller.symbol is None
    ]
    if lost:
        held = sum(region.size_bytes for region in lost)
        places = Counter(str(region.caller) for region in lost)
        top = ", ".join(f"{place} ({count})" for place, count in places.most_common(_TOP))
        noun = "1 region" if len(lost) == 1 else f"{len(lost)} regions"
        says = (
            f"{noun} ({size(held)}) allocated by text that is gone, of an "
            f"unloaded module or of a loaded one's init: {top}"
        )
        ask = "sudo kleak module NAME, with the module that was unloaded"
        yield TriageFinding(True, "vmallocinfo", says, ask)
    space = address_space_bytes(shot)
    if space:
        says = (
            f"{size(space)} of pcpu_get_vm_areas is address space of per-CPU memory and holds "
            "nothing: Percpu in /proc/meminfo counts the pages"
        )
        yield TriageFinding(False, "vmallocinfo", says)


def _allocinfo_of_gone_modules(shot: Snapshot) -> Iterator[TriageFinding]:
    if shot.allocinfo is None or shot.modules is None:
        return
    loaded = {module.name for module in shot.modules}
    left: Counter[str] = Counter()
    for site in shot.allocinfo.sites:
        if site.module is not None and site.module not in loaded and site.size_bytes > 0:
            left[site.module] += site.size_bytes
    for module, held in left.most_common(_TOP):
        says = f"{size(held)} of module {module}, which is no longer loaded"
        yield TriageFinding(True, "allocinfo", says, f"grep '\\[{module}\\]' /proc/allocinfo")


def _top_holders(ranked: Sequence[Ranking]) -> Iterator[TriageFinding]:
    """Reports that name code: one place that holds more than all others together stands out."""
    for ranking in ranked:
        ask = _ASK_RANKING.get(ranking.report)
        if ranking.report.startswith("alloc_traces"):
            ask = AGAIN
        if ask is None:
            continue
        top = ranking.consumers[0]
        held = size(top.amount) if ranking.unit == "bytes" else f"{top.amount:,} {ranking.unit}"
        if ranking.unit == "bytes" and top.detail:
            held += f" in {top.detail}"
        large = (
            ranking.unit == "bytes"
            and top.amount >= LARGE_BYTES
            and top.share_percent >= LARGE_SHARE
        )
        says = f"most is held by {top.name}: {held}, {top.share_percent:.0f} % of what is listed"
        yield TriageFinding(large, ranking.report, says, ask, noted=not large)


def _free(shot: Snapshot) -> Iterator[TriageFinding]:
    found = shot.free
    if found is None:
        return
    total, available = found.figures.get("total"), found.figures.get("available")
    share = found.used_share
    unit = found.unit_bytes

    def shown(value: float) -> str:
        return f"{value:g}" if unit is None else size(round(value * unit))

    says = "" if share is None or total is None else (
        f"{shown(found.figures['used'])} of {shown(total)} used ({100 * share:.0f} %)"
    )  # fmt: skip
    low = False
    if total and available is not None:
        low = available / total < LOW_AVAILABLE
        says += f", {shown(available)} available ({100 * available / total:.0f} %)"
    elif share is not None and "buff/cache" in found.figures:
        low = share > 1 - LOW_AVAILABLE
    says += f"; {found.tool} cannot tell the kernel's memory from that of programs" + (
        "" if unit else ", and does not print its unit"
    )
    ask = "sudo kleak triage; or send cat /proc/meminfo and sudo cat /proc/slabinfo"
    yield TriageFinding(low, found.tool, says, ask, noted=not low)


def _smem(shot: Snapshot) -> Iterator[TriageFinding]:
    if shot.smem is None:
        return
    total = sum(area.used_bytes for area in shot.smem.areas)
    kernel = next((one for one in shot.smem.areas if one.name == "kernel dynamic memory"), None)
    if kernel is None or not total:
        return
    share = 100 * kernel.noncache_bytes / total
    says = (
        f"kernel dynamic memory without caches is {size(kernel.noncache_bytes)}, {share:.0f} % of "
        "all memory; smem has it by subtraction and cannot tell slab from vmalloc or pages"
    )
    ask = "sudo kleak triage; or send cat /proc/meminfo and sudo cat /proc/slabinfo"
    large = share >= SMEM_SHARE
    yield TriageFinding(large, "smem", says, ask, noted=not large)


def _cgroups(shot: Snapshot) -> Iterator[TriageFinding]:
    count = None if shot.cgroups is None else shot.cgroups.counts.get("memory")
    if count is None:
        return
    many = count >= MANY_CGROUPS
    says = f"{count:,} memory cgroups"
    if many:
        says += ": most were removed, and are kept by memory that is still charged to them"
    ask = "find /sys/fs/cgroup -type d | wc -l, to compare with those that exist"
    yield TriageFinding(many, "cgroups", says, ask if many else None, noted=not many)


def _buddy(shot: Snapshot) -> Iterator[TriageFinding]:
    for zone in () if shot.buddyinfo is None else shot.buddyinfo.zones:
        if zone.free_pages < 1024 or any(zone.free_blocks[2:]):
            continue
        says = (
            f"node {zone.node} zone {zone.name} has {zone.free_pages:,} free pages "
            f"({size(zone.free_pages * shot.page_bytes)}) and no free block of 4 pages or more: "
            "fragmented, so that larger requests fail though memory is free"
        )
        yield TriageFinding(True, "buddyinfo", says, "cat /proc/pagetypeinfo; echo 1 | sudo tee "
                            "/proc/sys/vm/compact_memory")  # fmt: skip


def _lists_alone(shot: Snapshot) -> Iterator[TriageFinding]:
    """Reports that hold no figure of memory that a leak could be read from."""
    if shot.modules is not None and not any(
        (shot.meminfo, shot.slabinfo, shot.vmallocinfo, shot.kmemleak, shot.allocinfo)
    ):
        noun = "1 module is" if len(shot.modules) == 1 else f"{len(shot.modules)} modules are"
        says = f"{noun} loaded; that says nothing of memory"
        ask = "sudo kleak triage; or send cat /proc/meminfo and sudo cat /proc/slabinfo"
        yield TriageFinding(False, "modules", says, ask, noted=True)
    if shot.pagetypeinfo is not None:
        free = sum(shot.pagetypeinfo.free_pages.values())
        says = (
            f"{size(free * shot.page_bytes)} free in the lists shown; blocks of type Unmovable "
            "hold, or held, memory of the kernel"
        )
        ask = "cat /proc/meminfo; sudo cat /proc/slabinfo"
        yield TriageFinding(False, "pagetypeinfo", says, ask, noted=True)
