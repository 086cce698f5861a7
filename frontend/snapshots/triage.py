"""One look at what somebody has: where memory stands, what looks abnormal, whom to ask next.

The shares below are no verdict; docs/offline-analysis.md has the reason of each. The three
machines that the samples in tests/data are from (2 and 24 GB, Linux 6.1, 6.12 and 6.18) have each
kernel class below 2 % of MemTotal; a leak that hurts is far above the limits here, a busy server
may be too, and then the answer is to look twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from kleak.snapshots.consumers import Ranking, rankings
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.triage_finding import AGAIN, TriageFinding
from kleak.snapshots.triage_growth import judge_growth
from kleak.snapshots.triage_reports import LARGE_BYTES, judge_reports, largest_caches
from kleak.snapshots.witnesses.meminfo import (
    CLASSES,
    UNACCOUNTED,
    missing_fields,
    per_cpu_list_bytes,
    stacks_in_vmalloc,
    unaccounted,
)
from kleak.units import size

# Per cent of MemTotal from which on a class is called abnormal.
LIMITS = {
    "SUnreclaim": 10.0,
    "Slab": 25.0,
    "VmallocUsed": 5.0,
    "Percpu": 3.0,
    "KernelStack": 2.0,
    "PageTables": 5.0,
    UNACCOUNTED: 10.0,
}
# Per cent of MemTotal from which on what is no leak of the kernel is named all the same.
_WORTH_NAMING = {"SReclaimable": 20.0, "Shmem": 25.0, "Hugetlb": 25.0, "AnonPages": 70.0}
_WHAT_IT_IS = {
    "SReclaimable": "dentries, inodes and other slab that the kernel gives back when memory is "
    "short: reclaimable, so no leak",
    "Shmem": "files in tmpfs and shared memory of programs, which stay until somebody deletes "
    "them: not the kernel's",
    "Hugetlb": "huge pages that were set aside for programs (vm.nr_hugepages)",
    "AnonPages": "memory of programs, which goes when they end",
}
_NAMED_ASK = {
    "SReclaimable": "slabtop -o -s c; sync; echo 2 | sudo tee /proc/sys/vm/drop_caches, then look "
    "again",
    "Shmem": "df -t tmpfs -h; ipcs -m; ls -l /dev/shm",
    "Hugetlb": "grep Huge /proc/meminfo",
    "AnonPages": "ps aux --sort=-rss | head",
}
_ASK = {
    "SUnreclaim": "slabtop -o -s c; then kleak run --scope '*' -- CMD, or kmemleak",
    "Slab": "slabtop -o -s c; then kleak run --scope '*' -- CMD, or kmemleak",
    "VmallocUsed": "sudo sort -k2 -n -r /proc/vmallocinfo | head",
    "Percpu": f"{AGAIN}; allocinfo names the callers",
    "KernelStack": "ps -eLf | wc -l: tasks that do not end",
    "PageTables": "ps -eo pid,vsz,comm --sort=-vsz | head: processes with large mappings",
    UNACCOUNTED: "boot with page_owner=on and read /sys/kernel/debug/page_owner, or trace",
}
_SHOWN_LOSSES = 6


@dataclass(frozen=True, slots=True)
class Standing:
    """One class of memory, with its share of MemTotal in per cent (None without MemTotal)."""

    name: str
    owner: str
    size_bytes: int
    share_percent: float | None


@dataclass(frozen=True, slots=True)
class Triage:
    """Where memory stands, who holds it, and what to make of it: what looks abnormal first."""

    standings: tuple[Standing, ...]
    findings: tuple[TriageFinding, ...]
    rankings: tuple[Ranking, ...] = ()

    @property
    def abnormal(self) -> tuple[TriageFinding, ...]:
        """What looks abnormal."""
        return tuple(finding for finding in self.findings if finding.abnormal)


def triage(shot: Snapshot, earlier: Sequence[Snapshot] = ()) -> Triage:
    """Look at one snapshot. ``earlier`` are those before it, oldest first, if there are any."""
    shot, remarks = _newest(shot, earlier)
    standings = tuple(_standings(shot))
    ranked = rankings(shot)
    findings = [
        *_judge_classes(shot, standings),
        *judge_growth([*earlier, shot]),
        *judge_reports(shot, standings_abnormal=_abnormal_names(standings), ranked=ranked),
        *remarks,
        *_losses([*earlier, shot]),
    ]
    if not findings and not ranked and not standings:
        says = "what is here tells nothing of memory"
        findings.append(TriageFinding(False, "reports", says, "sudo kleak triage on that machine"))
    order = {True: 0, False: 1}
    findings.sort(key=lambda finding: order[finding.abnormal])
    return Triage(standings, tuple(findings), tuple(ranked))


def _newest(shot: Snapshot, earlier: Sequence[Snapshot]) -> tuple[Snapshot, list[TriageFinding]]:
    """The last snapshot, with the reports that only an earlier one has, or has whole."""
    remarks = []
    values = {}
    for item in fields(Snapshot):
        if item.name in ("label", "time", "losses", "damaged"):
            continue
        if not getattr(shot, item.name):
            older = (getattr(one, item.name) for one in reversed(earlier))
            value = next((one for one in older if one), None)
            if value is not None:
                values[item.name] = value
    lacking = () if shot.meminfo is None else missing_fields(shot.meminfo)
    if lacking and shot.meminfo_from is None:
        whole = next(
            (one for one in reversed(earlier)
             if one.meminfo is not None and not missing_fields(one.meminfo)), None
        )  # fmt: skip
        says = f"not in the report (cut, or of an old kernel): {', '.join(lacking)}"
        if whole is not None and len(lacking) > 1:
            values["meminfo"] = whole.meminfo
            says += "; shown is the report before it"
        else:
            says += "; so nothing is said of unaccounted memory"
        remarks.append(TriageFinding(False, "meminfo", says, "cat /proc/meminfo", missing=True))
    return replace(shot, **values), remarks


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


def _abnormal_names(standings: Sequence[Standing]) -> frozenset[str]:
    return frozenset(
        one.name for one in standings if (one.share_percent or 0) >= LIMITS.get(one.name, 101)
    )


def _judge_classes(shot: Snapshot, standings: Sequence[Standing]) -> Iterator[TriageFinding]:
    abnormal = _abnormal_names(standings)
    for standing in standings:
        share = standing.share_percent
        if share is None:
            continue
        held = f"{size(standing.size_bytes)} is {share:.1f} % of all memory"
        if standing.name in abnormal:
            says = f"{held} (seldom above {LIMITS[standing.name]:g} %)"
            if standing.name in ("SUnreclaim", "Slab"):
                caches = largest_caches(shot)
                says += "" if caches is None else f"; largest caches: {caches}"
            yield TriageFinding(True, standing.name, says, _ASK[standing.name])
        elif share >= _WORTH_NAMING.get(standing.name, 101):
            says = f"{held}: {_WHAT_IT_IS[standing.name]}"
            yield TriageFinding(False, standing.name, says, _NAMED_ASK[standing.name], noted=True)
    without_total = any(one.share_percent is None for one in standings)
    if without_total:
        yield from _judge_without_total(shot, standings)
    elif shot.meminfo is not None and standings and not abnormal:
        says = "no class of kernel memory stands out"
        if not any(one.owner == "kernel" for one in standings):
            says = "no class of kernel memory is in the report: nothing can be said of a leak"
        says += " among those in the report" if missing_fields(shot.meminfo) else ""
        says += "; a slow leak shows only over time"
        yield TriageFinding(False, "meminfo", says, AGAIN)
    if shot.meminfo_from is not None and shot.known_page_bytes is None:
        says = (
            f"{shot.meminfo_from} counts pages, and nothing here tells their size: "
            f"{size(shot.page_bytes)} is assumed; give --page-size where it is another"
        )
        yield TriageFinding(False, "page size", says, "getconf PAGESIZE", missing=True)
    lists = per_cpu_list_bytes(shot)
    if lists is not None:
        says = f"{size(lists)} are free on the CPUs' own lists, and count as neither free nor used"
        yield TriageFinding(False, "zoneinfo", says)


def _judge_without_total(shot: Snapshot, standings: Sequence[Standing]) -> Iterator[TriageFinding]:
    """Without MemTotal the classes can only be compared with each other."""
    kernel = [one for one in standings if one.owner == "kernel"]
    top = max(kernel, key=lambda one: one.size_bytes, default=None)
    if top is None:
        return
    rest = sum(one.size_bytes for one in standings if one is not top)
    large = top.name in ("SUnreclaim", "Slab") and top.size_bytes > max(rest, LARGE_BYTES)
    says = f"the largest class of the kernel is {top.name}, {size(top.size_bytes)}"
    says += ", more than all the others here together" if large else ""
    says += "; MemTotal is not here, so shares are unknown"
    ask = f"grep MemTotal /proc/meminfo; {_ASK.get(top.name, AGAIN)}"
    yield TriageFinding(large, shot.meminfo_from or "meminfo", says, ask, noted=not large)


def _losses(shots: Sequence[Snapshot]) -> Iterator[TriageFinding]:
    losses = [sentence for shot in shots for sentence in shot.losses]
    for sentence in losses[:_SHOWN_LOSSES]:
        yield TriageFinding(False, "damage", sentence, missing=True)
    if len(losses) > _SHOWN_LOSSES:
        says = f"{len(losses) - _SHOWN_LOSSES} more such lines"
        yield TriageFinding(False, "damage", says, missing=True)
