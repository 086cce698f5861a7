"""From snapshots to the ranked report: suspects of all reports merged, weighed and ordered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from kleak.analysis.verdict import conclude, ranking
from kleak.frames.names import base_name
from kleak.model.report import JudgedSite, Report, Verdict
from kleak.model.session import Frame, Kernel, Target, Trust
from kleak.model.witnesses import USED, WitnessState, absent
from kleak.snapshots.places import Places
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.suspects import Suspect
from kleak.snapshots.witnesses import counters, kmemleak, log, meminfo, slabinfo, vmallocinfo
from kleak.snapshots.witnesses.meminfo import MemoryTrends
from kleak.units import size

LISTED_BELOW_LIKELY = 25
# A cache whose growth call sites explain to this share is told with them, not by itself.
EXPLAINED_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Analysis:
    """What snapshots tell: the report, as the tracer would give it, and the classes of memory."""

    report: Report
    memory: MemoryTrends | None


_Judge = Callable[[Sequence[Snapshot], Places], list[Suspect]]
# In the order of how much of the stack they name: a later suspect is merged into an earlier.
_JUDGES: tuple[_Judge, ...] = (
    kmemleak.judge,
    counters.judge_alloc_traces,
    counters.judge_page_owner,
    vmallocinfo.judge,
    counters.judge_allocinfo,
    lambda snapshots, places: log.judge(snapshots),
    log.judge_references,
    counters.judge_counted_stacks,
    slabinfo.judge,
    meminfo.judge,
)


def analyze(snapshots: Sequence[Snapshot], name: str) -> Analysis:
    """Judge snapshots, oldest first. ``name`` is what the report calls them."""
    places = Places(snapshots)
    merger = _Merger()
    for judge in _JUDGES:
        merger.begin_report()
        for suspect in judge(snapshots, places):
            merger.add(suspect)
    complete = not any(shot.damaged for shot in snapshots)
    sites = sorted(
        (_weigh(suspect, complete=complete) for suspect in _fold_caches(merger.suspects)),
        key=ranking,
    )
    listed = [site for site in sites if site.verdict >= Verdict.LIKELY]
    others = [site for site in sites if site.verdict < Verdict.LIKELY]
    left_out = others[LISTED_BELOW_LIKELY:]
    listed += others[:LISTED_BELOW_LIKELY]
    memory = meminfo.follow(snapshots)
    trust = _trust(snapshots, left_out)
    kernel = next((shot.kernel for shot in snapshots if shot.kernel is not None), None)
    report = Report(
        kernel=kernel or Kernel("unknown", "unknown"),
        target=Target(kind="snapshots", name=name),
        cycles=max(len(snapshots) - 1, 0),
        trust=trust,
        sites=tuple(replace(site, rank=rank) for rank, site in enumerate(listed, start=1)),
    )
    return Analysis(report, memory)


class _Merger:
    """Suspects of several reports, one for each place. An index keeps this linear."""

    def __init__(self) -> None:
        self.suspects: list[Suspect] = []
        self._by_key: dict[Hashable, list[int]] = defaultdict(list)
        self._before = 0

    def begin_report(self) -> None:
        """What comes next is another report's: two suspects of one report are two places."""
        self._before = len(self.suspects)

    def add(self, suspect: Suspect) -> None:
        """Add a suspect, or what it says to one of the same place."""
        keys = _keys(suspect)
        candidates = sorted({position for key in keys for position in self._by_key.get(key, ())})
        for position in candidates:
            if position < self._before and _same_place(self.suspects[position], suspect):
                self.suspects[position] = _merge(self.suspects[position], suspect)
                break
        else:
            position = len(self.suspects)
            self.suspects.append(suspect)
        for key in keys:
            if position not in self._by_key[key]:
                self._by_key[key].append(position)


def _keys(suspect: Suspect) -> set[Hashable]:
    """What two suspects of one place have in common, at least one of it."""
    keys: set[Hashable] = {("address", address) for address in suspect.addresses}
    if suspect.frames:
        frame = suspect.frames[0]
        place = frame.offset if frame.symbol is None else base_name(frame.symbol)
        keys.add(("frame", frame.module, place))
    else:
        keys.add(("cache", suspect.cache, suspect.allocator if suspect.cache is None else None))
    return keys


def _merge(one: Suspect, other: Suspect) -> Suspect:
    return replace(
        one,
        findings=one.findings + other.findings,
        cache=one.cache or other.cache,
        outstanding=max(one.outstanding, other.outstanding, key=lambda tally: tally.size_bytes),
        per_step=one.per_step or other.per_step,
        frames=_with_source(one, other),
        addresses=one.addresses | other.addresses,
    )


def _same_place(one: Suspect, other: Suspect) -> bool:
    if one.addresses & other.addresses:
        return True
    if not one.frames or not other.frames:
        return not one.frames and not other.frames and one.cache == other.cache is not None
    first, second = one.frames[0], other.frames[0]
    if one.cache is not None and other.cache is not None and one.cache != other.cache:
        return False
    if first.source is None and second.source is None:
        # two reports with whole stacks must agree on them
        whole = len(one.frames) > 1 and len(other.frames) > 1
        return one.frames == other.frames if whole else first == second
    # a line of source against a frame: the function is what both have
    named = first.symbol is not None and second.symbol is not None
    return (
        named
        and first.module == second.module
        and base_name(first.symbol or "") == base_name(second.symbol or "")
        and (first.source == second.source or None in (first.source, second.source))
    )


def _with_source(one: Suspect, other: Suspect) -> tuple[Frame, ...]:
    """The frames of ``one``, with the other's line of source where it has none."""
    if not one.frames or not other.frames or one.frames[0].source is not None:
        return one.frames
    return (replace(one.frames[0], source=other.frames[0].source), *one.frames[1:])


def _fold_caches(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Tell a cache's growth with the call sites in it, where these explain it."""
    kept = list(suspects)
    for cache in [suspect for suspect in suspects if not suspect.frames and suspect.cache]:
        inside = [item for item in kept if item.frames and item.cache == cache.cache]
        grown = sum(item.outstanding.count for item in inside)
        if inside and grown >= EXPLAINED_SHARE * cache.outstanding.count:
            most = max(inside, key=lambda item: item.outstanding.count)
            told = tuple(
                replace(finding, says=f"{cache.allocator}: {finding.says}")
                for finding in cache.findings
            )
            kept[kept.index(most)] = replace(most, findings=most.findings + told)
            kept.remove(cache)
    return _without_whole(kept)


def _without_whole(suspects: Sequence[Suspect]) -> list[Suspect]:
    """The suspects without slab as a whole, where caches or places in code explain its growth."""
    whole = next((one for one in suspects if one.allocator == meminfo.SLAB_AS_A_WHOLE), None)
    if whole is None:
        return list(suspects)
    others = [one for one in suspects if one is not whole]
    told = sum(
        one.outstanding.size_bytes
        for one in others
        if one.cache is not None or one.allocator.startswith(("kmalloc", "kmem_cache", "cache "))
    )
    return others if told >= EXPLAINED_SHARE * whole.outstanding.size_bytes else list(suspects)


def _weigh(suspect: Suspect, *, complete: bool) -> JudgedSite:
    found = conclude(suspect.findings, complete=complete)
    return JudgedSite(
        rank=0,
        verdict=found.verdict,
        score=found.score,
        allocator=suspect.allocator,
        outstanding=suspect.outstanding,
        per_cycle=suspect.per_step,
        frames=suspect.frames,
        evidence=found.evidence,
        allocator_frames=suspect.allocator_frames,
    )


_REPORTS = (
    "meminfo", "vmallocinfo", "kmemleak", "slabinfo", "allocinfo", "page_owner", "alloc_traces",
)  # fmt: skip
_NEED_TWO = frozenset(_REPORTS) - {"kmemleak"}


def _trust(snapshots: Sequence[Snapshot], left_out: Sequence[JudgedSite]) -> Trust:
    lost: dict[str, int] = {}
    for shot in snapshots:
        for report, count in shot.damaged.items():
            key = f"damaged records of {report}"
            lost[key] = lost.get(key, 0) + count
    notes = []
    boots = {shot.boot_id for shot in snapshots if shot.boot_id is not None}
    if len(boots) > 1:
        notes.append(
            f"the snapshots are from {len(boots)} boots: numbers are compared, addresses are not"
        )
    for sentence in (vmallocinfo.mappings_apart(snapshots), kmemleak.set_aside(snapshots)):
        if sentence is not None:
            notes.append(sentence)
    notes += log.notes(snapshots)
    notes += [sentence for shot in snapshots for sentence in shot.losses]
    if left_out:
        total = sum(site.outstanding.size_bytes for site in left_out)
        notes.append(f"{len(left_out)} more places below likely are not listed ({size(total)})")
    witnesses = {report: _presence(report, snapshots) for report in _REPORTS}
    return Trust(lost=lost, witnesses=witnesses, notes=tuple(notes))


def _presence(report: str, snapshots: Sequence[Snapshot]) -> WitnessState:
    attribute = "page_stacks" if report == "page_owner" else report
    having = sum(bool(getattr(shot, attribute)) for shot in snapshots)
    if having >= 2 or (having == 1 and report not in _NEED_TWO):
        return USED
    if having == 1:
        return absent("in one snapshot only, nothing to compare with")
    why = next((shot.missing[report] for shot in snapshots if report in shot.missing), "not saved")
    return WitnessState.parse(why)
