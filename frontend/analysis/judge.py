"""From a captured session to the ranked report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kleak.analysis import memory
from kleak.analysis.attribution import Attribution, attribute, count_cycles
from kleak.analysis.grouping import fold
from kleak.analysis.verdict import conclude, ranking
from kleak.analysis.witnesses import kernel_log, vmallocinfo
from kleak.analysis.witnesses.register import WITNESSES
from kleak.frames.scope import before_dispatch, only_interrupted
from kleak.frames.stacks import Frames, before_interrupt, is_bookkeeping, split_allocator
from kleak.gc_pause import no_collection
from kleak.model.report import JudgedSite, MemoryAccount, Report
from kleak.model.session import CycleTally, Session, StackSample, Tally, Target, TracedSite, Trust
from kleak.model.witnesses import USED, absent
from kleak.wording import plural


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The sites that are judged, and those that were set aside and why."""

    judged: tuple[Attribution, ...]
    held: tuple[TracedSite, ...]
    bookkeeping: tuple[TracedSite, ...]
    interrupted: tuple[TracedSite, ...]


@no_collection()
def judge(session: Session) -> Report:
    """Judge every site of ``session`` that has outstanding allocations; the best leak first.

    Set aside are the allocators' own bookkeeping and what an interrupt allocated that happened
    to hit the target; the report's notes count both. Sites that differ in the allocator's
    frames only are one. Leaks that hang on others stand behind these. Where several modules were
    observed, a site is judged by the loads of the one it is charged to.
    """
    sites = _sort_out(session)
    judged = [(one.site, _judge_site(one)) for one in sites.judged]
    judged.sort(key=lambda pair: ranking(pair[1]))
    account = memory.account(session)
    return Report(
        kernel=session.kernel,
        target=session.target,
        cycles=max(count_cycles(session).values(), default=len(session.cycles)),
        trust=_trust(session, sites, account),
        sites=fold(judged, session),
        memory=account,
    )


def _sort_out(session: Session) -> _Sorted:
    outstanding = [site for site in session.sites if site.outstanding.count > 0]
    called, bookkeeping, interrupted = [], [], []
    for site in outstanding:
        if is_bookkeeping(site.frames, site.allocator):
            bookkeeping.append(site)
        elif only_interrupted(site.frames, session.target):
            interrupted.append(site)
        else:
            called.append(site)
    attributed = [attribute(site, session) for site in _merge(called, session.target)]
    judged = (one for one in attributed if one.site.outstanding.count)
    held = (one.held for one in attributed if one.held is not None)
    return _Sorted(tuple(judged), tuple(held), tuple(bookkeeping), tuple(interrupted))


def _merge(sites: Iterable[TracedSite], target: Target) -> Iterable[TracedSite]:
    """One site for those with the same allocator and frames behind the allocator's, down to where
    an interrupt made the kernel call the target: on which way, and what it hit, is chance.

    The allocator takes other paths for other sizes; the line of code that asked is the same.
    The frames of the one that holds most are kept.
    """
    merged: dict[tuple[str, Frames], list[TracedSite]] = {}
    for hit in sites:
        called = before_interrupt(hit.frames)
        site = hit if called == hit.frames else replace(hit, frames=called)
        allocator_frames, rest = split_allocator(before_dispatch(called, target))
        merged.setdefault((site.allocator, rest or allocator_frames), []).append(site)
    for same in merged.values():
        if len(same) == 1:
            yield same[0]
            continue
        most = max(same, key=lambda site: (site.outstanding.size_bytes, _frames_key(site.frames)))
        requested = [site.requested_bytes for site in same if site.requested_bytes is not None]
        kept = (allocation for site in same for allocation in site.kept)
        led_to = [site.pointers for site in same if site.pointers is not None]
        said = [site.reachability for site in same if site.reachability is not None]
        yield TracedSite(
            allocator=most.allocator,
            frames=most.frames,
            cycles=tuple(
                CycleTally(
                    allocated=_sum(tally.allocated for tally in tallies),
                    freed=_sum(tally.freed for tally in tallies),
                )
                for tallies in zip(*(site.cycles for site in same), strict=True)
            ),
            requested_bytes=sum(requested) if len(requested) == len(same) else None,
            kept=tuple(sorted(kept, key=lambda one: (one.allocated_at_ns, one.address))),
            reachability=sum(said[1:], said[0]) if said else None,
            stacks=_merge_samples(same, most),
            pointers=sum(led_to[1:], led_to[0]) if led_to else None,
        )


def _merge_samples(same: Sequence[TracedSite], most: TracedSite) -> StackSample | None:
    """What is known of the stacks of several sites, ``most`` of which is shown."""
    samples = [site.stacks or _walked(site) for site in same]
    if all(site.stacks is None for site in same):
        return None
    shown = most.stacks or _walked(most)
    return replace(
        shown,
        walked=sum(one.walked for one in samples),
        different=sum(one.different for one in samples),
    )


def _walked(site: TracedSite) -> StackSample:
    """A site all of whose objects have the stack that it shows."""
    count = site.outstanding.count
    return StackSample(site.frames[0], count, 1, count)


def _judge_site(attribution: Attribution) -> JudgedSite:
    site, session = attribution.site, attribution.session
    said = (ask(site, session) for ask in WITNESSES)
    findings = [finding for finding in said if finding is not None]
    found = conclude(findings, complete=session.trust.saw_every_event)
    allocator_frames, rest = split_allocator(site.frames)
    if not rest:
        allocator_frames, rest = allocator_frames[:-1], allocator_frames[-1:]
    return JudgedSite(
        rank=0,
        verdict=found.verdict,
        score=found.score,
        allocator=site.allocator,
        outstanding=site.outstanding,
        per_cycle=tuple(tally.outstanding for tally in site.cycles),
        frames=rest,
        evidence=found.evidence,
        requested_bytes=site.requested_bytes,
        allocator_frames=allocator_frames,
        stacks=site.stacks,
    )


def _trust(session: Session, sites: _Sorted, account: MemoryAccount | None) -> Trust:
    """What the session says, and what judging adds to it."""
    trust = session.trust
    witnesses = dict(trust.witnesses)
    if len(session.cycles) < 2:
        witnesses["growth"] = absent(f"one cycle cannot show it{_advice(session)}")
    else:
        witnesses.setdefault("growth", USED)
    if session.vmalloc_regions is None:
        witnesses.setdefault("vmallocinfo", absent("not read with real addresses"))
    else:
        witnesses.setdefault("vmallocinfo", USED)
    notes = list(trust.notes)
    if sites.bookkeeping:
        notes.append(f"left out: the allocators' own bookkeeping, {_extent(sites.bookkeeping)}")
    if sites.interrupted:
        notes.append(
            f"left out: what interrupts allocated while {session.target.name} ran, "
            f"{_extent(sites.interrupted)}"
        )
    if sites.held:
        notes.append(f"left out: what modules held that were still loaded, {_extent(sites.held)}")
    loads = count_cycles(session)
    if "," in session.target.name and loads:
        each = ", ".join(f"{name} {count}" for name, count in loads.items())
        notes.append(f"a module's cycles are its own loads: {each}")
    missed = sum(vmallocinfo.missed_frees(one.site, session) for one in sites.judged)
    if missed:
        gone = plural(missed, "outstanding region is", "outstanding regions are")
        notes.append(f"{gone} gone from /proc/vmallocinfo: their frees were missed")
    notes += kernel_log.notes(session)
    notes += memory.notes(account, len(session.cycles))
    return replace(trust, witnesses=witnesses, notes=tuple(notes))


def _advice(session: Session) -> str:
    """How to have more cycles; empty for kleak watch, which has none and plans none."""
    if session.target.kind == "module":
        return ", use --cycles 3 or more"
    return "" if session.circumstances.planned_cycles is None else ", use --repeat 3 or more"


def _extent(sites: Sequence[TracedSite]) -> str:
    count = sum(site.outstanding.count for site in sites)
    return f"{plural(count, 'object')} from {plural(len(sites), 'stack')}"


def _sum(tallies: Iterable[Tally]) -> Tally:
    every = tuple(tallies)
    return Tally(sum(one.count for one in every), sum(one.size_bytes for one in every))


def _frames_key(frames: Frames) -> tuple[tuple[str, str, int], ...]:
    return tuple((frame.module or "", frame.symbol or "", frame.offset) for frame in frames)
