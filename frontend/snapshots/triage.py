"""One look at one snapshot: where memory stands, what looks abnormal, whom to ask next.

The shares below are no verdict. The three machines that the samples in tests/data are from
(2 and 24 GB, Linux 6.1, 6.12 and 6.18) have each kernel class below 2 % of MemTotal; a leak that
hurts is far above the limits here, a busy server may be too, and then the answer is to look twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kleak.parsers import kmsg
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.witnesses import log as log_witness
from kleak.snapshots.witnesses.meminfo import (
    CLASSES,
    UNACCOUNTED,
    per_cpu_list_bytes,
    stacks_in_vmalloc,
    unaccounted,
)
from kleak.snapshots.witnesses.slabinfo import describe
from kleak.units import size

_TOP = 5
# Per cent of MemTotal from which on a class is called abnormal.
LIMITS = {
    "SUnreclaim": 10.0,
    "VmallocUsed": 5.0,
    "Percpu": 3.0,
    "KernelStack": 2.0,
    "PageTables": 5.0,
    UNACCOUNTED: 10.0,
}
_AGAIN = "kleak collect --drop-caches DIR (4 times or more), then kleak analyze DIR"
_ASK = {
    "SUnreclaim": "slabtop -o -s c; then kleak run --scope '*' -- CMD, or kmemleak",
    "VmallocUsed": "sudo sort -k2 -n -r /proc/vmallocinfo | head",
    "Percpu": f"{_AGAIN}; allocinfo names the callers",
    "KernelStack": "ps -eLf | wc -l: tasks that do not end",
    "PageTables": "ps -eo pid,vsz,comm --sort=-vsz | head: processes with large mappings",
    UNACCOUNTED: "boot with page_owner=on and read /sys/kernel/debug/page_owner, or trace",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """One class of memory, with its share of MemTotal in per cent (None without MemTotal)."""

    name: str
    owner: str
    size_bytes: int
    share_percent: float | None


@dataclass(frozen=True, slots=True)
class TriageFinding:
    """One thing to know. ``ask`` is the command, or what to do, for the next witness. ``missing``:
    a witness that could not be asked.
    """

    abnormal: bool
    subject: str
    says: str
    ask: str | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Triage:
    """Where memory stands, and what to make of it: what looks abnormal comes first."""

    standings: tuple[Standing, ...]
    findings: tuple[TriageFinding, ...]

    @property
    def abnormal(self) -> tuple[TriageFinding, ...]:
        """What looks abnormal."""
        return tuple(finding for finding in self.findings if finding.abnormal)


def triage(shot: Snapshot) -> Triage:
    """Look at one snapshot."""
    standings = tuple(_standings(shot))
    findings = [
        *_judge_classes(shot, standings),
        *_judge_large_slab(shot),
        *_judge_vmalloc(shot),
        *_judge_kmemleak(shot),
        *_judge_allocinfo(shot),
        *_judge_log(shot),
    ]
    findings.sort(key=lambda finding: not finding.abnormal)
    return Triage(standings, tuple(findings))


def _standings(shot: Snapshot) -> Iterator[Standing]:
    report = shot.meminfo
    if report is None:
        return
    total = report.mem_total_bytes
    figures = [(item.name, item.owner, item.get(report)) for item in CLASSES]
    rest = unaccounted(shot, stacks_inside=stacks_in_vmalloc([shot]))
    figures.append((UNACCOUNTED, "kernel", rest))
    for name, owner, figure in figures:
        if figure is not None:
            yield Standing(name, owner, figure, 100 * figure / total if total else None)


def _judge_classes(shot: Snapshot, standings: Sequence[Standing]) -> Iterator[TriageFinding]:
    for standing in standings:
        limit = LIMITS.get(standing.name)
        share = standing.share_percent
        if limit is None or share is None:
            continue
        if share >= limit:
            says = (
                f"{size(standing.size_bytes)} is {share:.1f} % of all memory (seldom above "
                f"{limit:g} %)"
            )
            if standing.name == "SUnreclaim":
                says += _largest_caches(shot)
            yield TriageFinding(True, standing.name, says, _ASK[standing.name])
    if shot.meminfo is not None and not any(
        (standing.share_percent or 0) >= LIMITS.get(standing.name, 101) for standing in standings
    ):
        says = "no class of kernel memory stands out; a slow leak shows only over time"
        yield TriageFinding(False, "meminfo", says, _AGAIN)
    lists = per_cpu_list_bytes(shot)
    if lists is not None:
        says = f"{size(lists)} are free on the CPUs' own lists, and count as neither free nor used"
        yield TriageFinding(False, "zoneinfo", says)


def _largest_caches(shot: Snapshot) -> str:
    if shot.slabinfo is None:
        return ""
    largest = sorted(
        shot.slabinfo.caches,
        key=lambda cache: -cache.slabs * cache.pages_per_slab,
    )[:_TOP]
    shown = (
        f"{describe(cache.name, shot.slab_aliases)} "
        f"{size(cache.slabs * cache.pages_per_slab * shot.page_bytes)}"
        for cache in largest
    )
    return f"; largest caches: {', '.join(shown)}"


def _judge_large_slab(shot: Snapshot) -> Iterator[TriageFinding]:
    """Large kmalloc (beyond 8 kB) is counted as slab but is in no cache."""
    if shot.meminfo is None or shot.slabinfo is None or shot.meminfo.slab_bytes is None:
        return
    in_caches = sum(
        cache.slabs * cache.pages_per_slab * shot.page_bytes for cache in shot.slabinfo.caches
    )
    large = shot.meminfo.slab_bytes - in_caches
    total = shot.meminfo.mem_total_bytes
    if total and 100 * large / total >= LIMITS["SUnreclaim"] / 2:
        says = (
            f"{size(large)} of Slab is in no cache of /proc/slabinfo: kmalloc of more than 8 kB, "
            "which takes whole pages"
        )
        yield TriageFinding(True, "large kmalloc", says, "kleak run --scope '*' -- CMD")


def _judge_vmalloc(shot: Snapshot) -> Iterator[TriageFinding]:
    if shot.vmallocinfo is None:
        why = shot.missing.get("vmallocinfo")
        if why is not None:
            yield TriageFinding(False, "vmallocinfo", why, "sudo kleak triage", missing=True)
        return
    lost = [
        region
        for region in shot.vmallocinfo.regions
        if region.is_allocation and region.caller is not None and region.caller.symbol is None
    ]
    if lost:
        held = sum(region.size_bytes for region in lost)
        places = Counter(str(region.caller) for region in lost)
        top = ", ".join(f"{place} ({count})" for place, count in places.most_common(_TOP))
        says = (
            f"{len(lost)} regions ({size(held)}) were allocated by text that is gone, of an "
            f"unloaded module or of a loaded one's init: {top}"
        )
        ask = "sudo kleak module NAME, with the module that was unloaded"
        yield TriageFinding(True, "vmallocinfo", says, ask)
    allocations = [region for region in shot.vmallocinfo.regions if region.is_allocation]
    by_caller: Counter[str] = Counter()
    for region in allocations:
        by_caller[str(region.caller)] += region.size_bytes
    if by_caller:
        top = ", ".join(f"{name} {size(held)}" for name, held in by_caller.most_common(3))
        says = f"{len(allocations)} regions of vmalloc; the most is held for {top}"
        yield TriageFinding(False, "vmallocinfo", says)


def _judge_kmemleak(shot: Snapshot) -> Iterator[TriageFinding]:
    if shot.kmemleak is None:
        why = shot.missing.get("kmemleak")
        if why is not None:
            ask = "a kernel with CONFIG_DEBUG_KMEMLEAK tells leaks by reachability"
            yield TriageFinding(False, "kmemleak", why, ask, missing=True)
        return
    objects = shot.kmemleak.objects
    if objects:
        held = sum(item.size_bytes for item in objects)
        says = f"{len(objects)} objects ({size(held)}) that nothing points to"
        ask = "sudo kleak collect --scan DIR; kleak analyze DIR"
        yield TriageFinding(True, "kmemleak", says, ask)
    else:
        says = "nothing reported" + ("" if shot.scanned else ", and nobody asked for a scan")
        yield TriageFinding(False, "kmemleak", says, "sudo kleak triage --scan")


def _judge_allocinfo(shot: Snapshot) -> Iterator[TriageFinding]:
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


def _judge_log(shot: Snapshot) -> Iterator[TriageFinding]:
    for suspect in log_witness.judge([shot]):
        for finding in suspect.findings:
            yield TriageFinding(True, "kernel log", finding.says)
    for note in log_witness.notes([shot]):
        yield TriageFinding(True, "kernel log", note.removeprefix("kernel log: "))
    for line in shot.log or ():
        if isinstance(line, kmsg.KmemleakSuspects):
            says = f"kmemleak reported {line.count} new suspects"
            yield TriageFinding(True, "kernel log", says, "cat /sys/kernel/debug/kmemleak")
