"""/proc/meminfo over snapshots: which class of memory grows, and what no class names.

A class is what one owner holds. What MemTotal has beyond all classes is "unaccounted": pages
that a driver took with alloc_pages(), page pools, fragments; pages on the CPUs' lists of free
pages would count there too, and are taken off where /proc/zoneinfo was saved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kleak.analysis.trend import MIN_SNAPSHOTS, Trend, estimate
from kleak.model.session import Tally
from kleak.parsers.meminfo import Meminfo, kernel_name
from kleak.snapshots.places import Places
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.suspects import Suspect, judge_rise, judge_trend
from kleak.units import size

_TASK_STACK_CALLER = re.compile(r"(?:kernel_clone|_do_fork|copy_process|dup_task_struct)\b.*")
_Getter = Callable[[Meminfo], "int | None"]


@dataclass(frozen=True, slots=True)
class MemoryClass:
    """One class. ``owner`` is "free", "cache", "user" or "kernel"; ``get`` is bytes or None.

    ``exact`` is whether the kernel keeps it in one counter, and not in one for each CPU that is
    added up only now and then (vm_stat in mm/vmstat.c).
    """

    name: str
    owner: str
    get: _Getter
    exact: bool = False


def _sum(*attributes: str) -> _Getter:
    """The sum of the fields that this kernel has; None where it has none of them."""

    def get(report: Meminfo) -> int | None:
        present = [value for name in attributes if (value := getattr(report, name)) is not None]
        return sum(present) if present else None

    return get


def _page_cache(report: Meminfo) -> int | None:
    cached = _sum("buffers_bytes", "cached_bytes", "swap_cached_bytes")(report)
    # Cached counts tmpfs and shared memory, which no dropping of caches gives back
    return None if cached is None else cached - (report.shmem_bytes or 0)


def _undivided_slab(report: Meminfo) -> int | None:
    """Slab where the kernel (before 2.6.19) or the report does not tell what of it is what."""
    divided = report.sunreclaim_bytes is not None or report.sreclaimable_bytes is not None
    return None if divided else report.slab_bytes


def _rest_of_slab(known: str, other: str) -> _Getter:
    """One part of Slab: as printed, or what the other part leaves of it."""

    def get(report: Meminfo) -> int | None:
        value: int | None = getattr(report, known)
        rest: int | None = getattr(report, other)
        if value is not None or rest is None or report.slab_bytes is None:
            return value
        return max(report.slab_bytes - rest, 0)

    return get


CLASSES: tuple[MemoryClass, ...] = (
    MemoryClass("MemFree", "free", _sum("mem_free_bytes")),
    MemoryClass("page cache", "cache", _page_cache),
    MemoryClass("SReclaimable", "cache", _rest_of_slab("sreclaimable_bytes", "sunreclaim_bytes")),
    MemoryClass("AnonPages", "user", _sum("anon_pages_bytes")),
    MemoryClass("Shmem", "user", _sum("shmem_bytes")),
    MemoryClass("Hugetlb", "user", _sum("hugetlb_bytes")),
    MemoryClass("SUnreclaim", "kernel", _rest_of_slab("sunreclaim_bytes", "sreclaimable_bytes")),
    MemoryClass("Slab", "kernel", _undivided_slab),
    MemoryClass("VmallocUsed", "kernel", _sum("vmalloc_used_bytes"), exact=True),
    MemoryClass("Percpu", "kernel", _sum("percpu_bytes"), exact=True),
    MemoryClass("KernelStack", "kernel", _sum("kernel_stack_bytes")),
    MemoryClass("PageTables", "kernel", _sum("page_tables_bytes", "sec_page_tables_bytes")),
    MemoryClass("Balloon", "kernel", _sum("balloon_bytes")),
)
UNACCOUNTED = "unaccounted"
SLAB_AS_A_WHOLE = "unreclaimable slab"
# Fields that every kernel prints, by the version that brought them where that is not the oldest:
# one that is missing was cut off, and its memory is not unaccounted for.
_ALWAYS = (
    "mem_total_bytes", "mem_free_bytes", "buffers_bytes", "cached_bytes", "page_tables_bytes",
    "vmalloc_used_bytes", "anon_pages_bytes", "slab_bytes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClassTrend:
    """The trend of one class over the snapshots, bytes.

    ``resolution_bytes`` is how far a figure may be off, because the CPUs have counts of their
    own; 0 where nothing is known of it.
    """

    name: str
    owner: str
    trend: Trend
    resolution_bytes: int = 0

    @property
    def grows(self) -> bool | None:
        """Whether it grows by more than noise and than its resolution; None if untold."""
        return self.trend.grows and self.trend.total > self.resolution_bytes

    @property
    def falls(self) -> bool | None:
        """Whether it falls by more than noise and than its resolution; None if untold."""
        return self.trend.falls and -self.trend.total > self.resolution_bytes


@dataclass(frozen=True, slots=True)
class MemoryTrends:
    """All classes that every snapshot has. ``says`` are sentences for a person."""

    classes: tuple[ClassTrend, ...]
    says: tuple[str, ...]

    def get(self, name: str) -> ClassTrend | None:
        """One class by its name."""
        return next((item for item in self.classes if item.name == name), None)


def follow(snapshots: Sequence[Snapshot]) -> MemoryTrends | None:
    """The trends of all classes, None with fewer than two reports."""
    shots = [shot for shot in snapshots if shot.meminfo is not None]
    if len(shots) < 2:
        return None
    in_vmalloc = stacks_in_vmalloc(shots)
    resolution = max(_resolution_bytes(shot) for shot in shots)
    classes = []
    for item in CLASSES:
        values = [item.get(shot.meminfo) for shot in shots if shot.meminfo is not None]
        known = [value for value in values if value is not None]
        if len(known) == len(shots):
            slack = 0 if item.exact else resolution
            classes.append(ClassTrend(item.name, item.owner, estimate(known), slack))
    rest = [unaccounted(shot, stacks_inside=in_vmalloc) for shot in shots]
    known = [value for value in rest if value is not None]
    if len(known) == len(shots):
        classes.append(ClassTrend(UNACCOUNTED, "kernel", estimate(known), resolution))
    trends = MemoryTrends(tuple(classes), ())
    return MemoryTrends(trends.classes, tuple(_explain(trends, shots, in_vmalloc)))


def judge(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """SUnreclaim as a suspect without frames, where it rose in every step.

    It is the growth of all slab caches together: the caller leaves it out where these, or places
    in code, explain it.
    """
    levels = [
        shot.meminfo.sunreclaim_bytes
        for shot in snapshots
        if shot.meminfo is not None and shot.meminfo.sunreclaim_bytes is not None
    ]
    if len(levels) < MIN_SNAPSHOTS:
        return []
    rises = judge_rise("meminfo", levels, "SUnreclaim")
    if rises is None:
        return []
    trend = judge_trend("meminfo", estimate([level / 1024 for level in levels]), "kB")
    grown = Tally(0, levels[-1] - levels[0])
    return [Suspect(SLAB_AS_A_WHOLE, (), grown, (trend, rises))]


def missing_fields(report: Meminfo) -> tuple[str, ...]:
    """The kernel's names of the fields that a whole report has and this one lacks.

    AnonPages came with 2.6.18, Percpu with 5.0 (which has KReclaimable, of 4.20).
    """
    names = [name for name in _ALWAYS if getattr(report, name) is None]
    if "slab_bytes" in names and report.sunreclaim_bytes is not None:
        names.remove("slab_bytes")
    if report.kreclaimable_bytes is not None and report.percpu_bytes is None:
        names.append("percpu_bytes")
    return tuple(kernel_name(name) for name in names)


def unaccounted(shot: Snapshot, *, stacks_inside: bool | None) -> int | None:
    """Bytes of MemTotal that no class names; None where a class is missing from the report.

    ``stacks_inside`` is whether VmallocUsed holds the kernel's stacks already; where that is
    not known they are taken to be inside, as on all kernels with CONFIG_VMAP_STACK.
    """
    report = shot.meminfo
    if report is None or report.mem_total_bytes is None or missing_fields(report):
        return None
    named = 0
    for item in CLASSES:
        if item.name == "KernelStack" and stacks_inside is not False:
            continue
        named += item.get(report) or 0
    return report.mem_total_bytes - named - (per_cpu_list_bytes(shot) or 0)


def per_cpu_list_bytes(shot: Snapshot) -> int | None:
    """Free pages on the CPUs' own lists, None without /proc/zoneinfo."""
    if shot.zoneinfo is None:
        return None
    pages = sum(zone.per_cpu_pages or 0 for zone in shot.zoneinfo.zones)
    return pages * shot.page_bytes


def _resolution_bytes(shot: Snapshot) -> int:
    if shot.zoneinfo is None:
        return 0
    return sum(zone.counter_slack or 0 for zone in shot.zoneinfo.zones) * shot.page_bytes


def stacks_in_vmalloc(shots: Sequence[Snapshot]) -> bool | None:
    """Whether task stacks are vmalloc'ed (CONFIG_VMAP_STACK), by the rows of vmallocinfo."""
    reports = [shot.vmallocinfo for shot in shots if shot.vmallocinfo is not None]
    if not any(report.regions for report in reports):
        return None
    return any(
        region.is_allocation
        and region.caller is not None
        and _TASK_STACK_CALLER.fullmatch(region.caller.symbol or "") is not None
        for report in reports
        for region in report.regions
    )


def _explain(trends: MemoryTrends, shots: Sequence[Snapshot], in_vmalloc: bool | None) -> list[str]:
    says = []
    if len(shots) < MIN_SNAPSHOTS:
        says.append(
            f"{len(shots)} snapshots cannot tell growth from noise; {MIN_SNAPSHOTS} can, more "
            "are better"
        )
    if not all(shot.dropped_caches for shot in shots):
        says.append(
            "caches were not dropped before each snapshot, so dentries, inodes and page cache "
            "blur the figures: collect with --drop-caches"
        )
    for shot in shots:
        lacking = () if shot.meminfo is None else missing_fields(shot.meminfo)
        if lacking and shot.meminfo_from is None:
            says.append(
                f"{shot.label}: not in its report: {', '.join(lacking)}; so there is no figure for "
                "unaccounted memory"
            )
            break
    totals = {shot.meminfo.mem_total_bytes for shot in shots if shot.meminfo is not None}
    if len(totals) > 1:
        says.append("MemTotal itself changed: memory came or went, or these are several boots")
    growing = [item for item in trends.classes if item.owner == "kernel" and item.grows is True]
    for item in growing:
        low, high = item.trend.low or 0, item.trend.high or 0
        says.append(
            f"{item.name} grows by {_kb(item.trend.per_step)} a step, more than noise (90 % "
            f"interval {_kb(low)} to {_kb(high)}): {_NEXT[item.name]}"
        )
    if in_vmalloc and any(item.name == "KernelStack" for item in growing):
        says.append("kernel stacks are vmalloc'ed here: VmallocUsed counts them a second time")
    free = _explain_free(trends)
    if free is not None:
        says.append(free)
    if len(shots) >= MIN_SNAPSHOTS and not growing:
        says.append("no class of kernel memory grows by more than noise")
    return says


_NEXT = {
    "Slab": "slab; this kernel does not tell what of it is reclaimable",
    "SUnreclaim": "slab objects; slabinfo tells which cache, kmemleak or alloc_traces which code",
    "VmallocUsed": "vmalloc; /proc/vmallocinfo names the callers",
    "Percpu": "per-CPU memory; kleak's tracer or allocinfo names the callers",
    "KernelStack": "stacks: tasks that do not end",
    "PageTables": "page tables: of processes, or of KVM or an IOMMU",
    "Balloon": "the hypervisor takes memory back: no leak of the kernel",
    UNACCOUNTED: "pages taken straight from alloc_pages(); page_owner or the tracer names who",
}


def _explain_free(trends: MemoryTrends) -> str | None:
    """Where the change of MemFree went. It decides nothing by itself."""
    free = trends.get("MemFree")
    if free is None or free.trend.total == 0:
        return None
    moved: dict[str, float] = {"cache": 0.0, "user": 0.0, "kernel": 0.0}
    for item in trends.classes:
        # in VmallocUsed as well, on all but odd kernels
        if item.owner in moved and item.name != "KernelStack":
            moved[item.owner] += item.trend.total
    verb = "fell" if free.trend.total < 0 else "rose"
    return (
        f"MemFree {verb} by {_kb(abs(free.trend.total))}, which decides nothing by itself: "
        f"caches changed by {_kb(moved['cache'], sign=True)} (given back when memory is short), "
        f"user memory by {_kb(moved['user'], sign=True)} (goes with its processes), the kernel's "
        f"own classes by {_kb(moved['kernel'], sign=True)} (only this can be a leak of the kernel)"
    )


def _kb(size_bytes: float, *, sign: bool = False) -> str:
    prefix = "+" if sign and size_bytes >= 0 else ""
    return prefix + size(round(size_bytes))
