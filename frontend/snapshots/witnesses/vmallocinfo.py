"""/proc/vmallocinfo over snapshots: regions that appeared and did not go.

Only VM_ALLOC regions count; ioremap and vmap map what is somebody else's, and are counted apart.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Frame, Tally
from kleak.parsers.code_location import AddressKind
from kleak.parsers.vmallocinfo import Region, Vmallocinfo
from kleak.snapshots.owner import judge_owner
from kleak.snapshots.places import Places
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.suspects import Suspect, judge_steps

WITNESS = "vmallocinfo"

# Who calls vmalloc for what is no leak of the caller: stacks of tasks, memory of modules.
_TASK_STACK = re.compile(r"(?:kernel_clone|_do_fork|copy_process|dup_task_struct|fork_idle)\b.*")
_MODULE_MEMORY = re.compile(r"(?:load_module|move_module|module_alloc\w*|module_memory_alloc)\b.*")
_PAGE_OFFSET = 0xFFF
_NO_CALLER = Frame(None, "unknown caller", 0)


@dataclass(slots=True)
class _Group:
    """The regions of one caller. ``kept`` maps a step to the regions it left."""

    frame: Frame
    kept: dict[int, list[Region]] = field(default_factory=lambda: defaultdict(list))
    left_bytes: int = 0
    gone: int = 0
    places: set[int] = field(default_factory=set)


def judge(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """A suspect for each caller that has more regions at the end than at the start."""
    reports = [shot.vmallocinfo for shot in snapshots if shot.vmallocinfo is not None]
    if len(reports) < 2:
        return []
    comparable = _addresses_comparable(snapshots, reports)
    seen: list[set[Hashable]] = [set(_identify(report, exact=comparable)) for report in reports]
    groups: dict[Hashable, _Group] = {}
    last = _identify(reports[-1], exact=comparable)
    for identity, region in last.items():
        step = _first_seen(identity, seen)
        if step > 0:
            key, frame = _caller(region, places)
            group = groups.setdefault(key, _Group(frame))
            group.kept[step].append(region)
            if region.caller is not None and region.caller.address is not None:
                group.places.add(region.caller.address)
    for report in reports[:-1]:
        for identity, region in _identify(report, exact=comparable).items():
            if identity not in last:
                key, _ = _caller(region, places)
                if key in groups:
                    groups[key].gone += 1
    return [_suspect(group, len(reports), places) for group in groups.values()]


def mappings_apart(snapshots: Sequence[Snapshot]) -> str | None:
    """A sentence on the regions that are no allocations, None where nothing can be said."""
    reports = [shot.vmallocinfo for shot in snapshots if shot.vmallocinfo is not None]
    if not reports:
        return None
    first, last = (_count_kinds(report) for report in (reports[0], reports[-1]))
    parts = []
    for kind in sorted(first | last):
        if first[kind] == last[kind]:
            parts.append(f"{last[kind]} {kind}")
        else:
            parts.append(f"{last[kind]} {kind} (before: {first[kind]})")
    if not parts:
        return None
    return f"vmallocinfo: not counted, as they hold no memory of their own: {', '.join(parts)}"


def _count_kinds(report: Vmallocinfo) -> Counter[str]:
    return Counter(region.kind for region in report.regions if not region.is_allocation)


def _addresses_comparable(snapshots: Sequence[Snapshot], reports: Sequence[Vmallocinfo]) -> bool:
    """Whether an address of one report is the same region in another.

    Real ones are, and hashed ones within one boot, since the key of the hash is made at boot.
    """
    boots = {shot.boot_id for shot in snapshots if shot.boot_id is not None}
    kinds = frozenset[AddressKind]().union(*(report.address_kinds for report in reports))
    exact = {AddressKind.REAL, AddressKind.HASHED}
    return len(boots) <= 1 and len(kinds) <= 1 and kinds <= exact


def _identify(report: Vmallocinfo, *, exact: bool) -> dict[Hashable, Region]:
    """The VM_ALLOC regions by what identifies them.

    By start and size, or, where the addresses serve for nothing, by caller, size and a running
    number: then it is the number of equal regions that is compared.
    """
    regions = [region for region in report.regions if region.is_allocation]
    if exact:
        return {(region.start, region.size_bytes): region for region in regions}
    numbers: Counter[Hashable] = Counter()
    identified: dict[Hashable, Region] = {}
    for region in regions:
        alike = (region.caller, region.size_bytes, region.pages)
        numbers[alike] += 1
        identified[alike, numbers[alike]] = region
    return identified


def _first_seen(identity: Hashable, seen: Sequence[set[Hashable]]) -> int:
    """The snapshot from which on the region is there without a gap."""
    step = len(seen) - 1
    while step > 0 and identity in seen[step - 1]:
        step -= 1
    return step


def _caller(region: Region, places: Places) -> tuple[Hashable, Frame]:
    if region.caller is None:
        return (None, region.size_bytes), _NO_CALLER
    frame = places.frame(region.caller)
    if frame.symbol is None and frame.module is None:
        # a module lands elsewhere at each load, but always at the start of a page
        return (frame.offset & _PAGE_OFFSET, region.size_bytes), frame
    return frame, frame


def _suspect(group: _Group, reports: int, places: Places) -> Suspect:
    regions = [region for kept in group.kept.values() for region in kept]
    total = Tally(len(regions), sum(region.size_bytes for region in regions))
    per_step = tuple(
        Tally(len(kept), sum(region.size_bytes for region in kept))
        for kept in (group.kept.get(step, []) for step in range(1, reports))
    )
    size = f"{regions[0].size_bytes} B each" if len({r.size_bytes for r in regions}) == 1 else ""
    says = f"{total.count} regions appeared and are still there{', ' + size if size else ''}"
    findings = [Finding(WITNESS, Fact.APPEARED, says)]
    findings.append(judge_steps(WITNESS, [tally.count for tally in per_step], "regions"))
    findings += _judge_caller(group, places)
    addresses = (r.start for r in regions if r.address_kind is AddressKind.REAL)
    return Suspect(
        allocator="vmalloc",
        frames=(group.frame,),
        outstanding=total,
        findings=tuple(findings),
        per_step=per_step,
        addresses=frozenset(address for address in addresses if address is not None),
    )


def _judge_caller(group: _Group, places: Places) -> list[Finding]:
    symbol = group.frame.symbol
    findings = []
    if symbol is not None and _TASK_STACK.fullmatch(symbol):
        findings.append(Finding(WITNESS, Fact.TASK_STACK, "the stacks of tasks"))
    elif symbol is not None and _MODULE_MEMORY.fullmatch(symbol):
        findings.append(Finding(WITNESS, Fact.MODULE_MEMORY, "memory of loaded modules"))
    elif len(group.places) > 1 and symbol is None:
        says = f"called from {len(group.places)} addresses of text that is gone, at one page offset"
        findings.append(Finding(WITNESS, Fact.TEXT_GONE, says))
    elif (finding := judge_owner(WITNESS, (group.frame,), places)) is not None:
        findings.append(finding)
    if group.gone:
        says = f"{group.gone} other regions of this caller went"
        findings.append(Finding(WITNESS, Fact.COMES_AND_GOES, says))
    return findings
