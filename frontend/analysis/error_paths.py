"""Judging a session in which calls failed on purpose: each failure by the cycles that had it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from kleak.analysis import verdict
from kleak.analysis.judge import judge
from kleak.analysis.verdict import LIKELY_SCORE
from kleak.analysis.witnesses import registered_names
from kleak.model.error_paths import ErrorPath, ErrorPaths, Outcome
from kleak.model.faults import FailedCall, Failure, FaultRun, Injection
from kleak.model.frame import Frame
from kleak.model.report import Evidence, Injected, JudgedSite, Report, Verdict
from kleak.model.session import Session, TracedSite
from kleak.model.witnesses import WitnessState

# What these say is of the whole capture, and compares its begin with its end: they cannot be held
# against the few cycles of one failure.
_OF_THE_WHOLE = frozenset({"slabinfo", "allocinfo", "allocation tags", "zoneinfo", "meminfo"})


CONTRAST = 1.0
"""Log-odds: a registered name stays after a failure, and only then."""


SUSPECT_SCORE = 20.0
"""Per cent: what scores less is as good as cleared, a late free or a set-up."""


def of_cycles(session: Session, cycles: Sequence[int]) -> Session:
    """Return a session that has only these cycles, numbered from 1, and what is known of them.

    What kmemleak says of a site is known of all its objects only: it stays where these cycles
    have them all.
    """
    chosen = sorted(cycles)
    number = {cycle: place for place, cycle in enumerate(chosen, start=1)}
    sites = []
    for site in session.sites:
        tallies = tuple(site.cycles[cycle - 1] for cycle in chosen)
        if not any(tally.allocated.count for tally in tallies):
            continue
        kept = [one for one in site.kept if one.cycle in number]
        outstanding = sum(tally.outstanding.count for tally in tallies)
        whole = outstanding == site.outstanding.count
        sites.append(
            TracedSite(
                site.allocator,
                site.frames,
                tallies,
                site.requested_bytes if whole else None,
                tuple(one._replace(cycle=number[one.cycle]) for one in kept),
                site.reachability if whole else None,
                site.stacks,
            )
        )
    about = session.circumstances
    return replace(
        session,
        cycles=tuple(replace(session.cycles[cycle - 1], index=number[cycle]) for cycle in chosen),
        sites=tuple(sites),
        circumstances=replace(
            about,
            samples=(),
            answers=tuple(one for one in about.answers if one.witness not in _OF_THE_WHOLE),
        ),
        faults=None,
    )


def leaves_more(session: Session, cycles: Collection[int], baseline: Collection[int]) -> bool:
    """Whether any site has more outstanding of one of ``cycles`` than it ever had of those in
    which nothing failed.
    """
    return any(
        _more(site, cycles, baseline) for site in session.sites if site.outstanding.count > 0
    )


def baseline_cycles(session: Session, faults: FaultRun) -> list[int]:
    """The cycles in which nothing failed."""
    failing = {one.cycle for one in faults.injections}
    return [cycle.index for cycle in session.cycles if cycle.index not in failing]


def conclude(session: Session) -> Report:
    """Judge a session. Where calls failed, the report's sites are those of all failures together.

    There a site counts for a failure only where more stays of it than without any failure. What a
    task held that the kernel killed is no leak.
    """
    faults = session.faults
    if faults is None:
        return judge(session)
    baseline = baseline_cycles(session, faults)
    plain = judge(of_cycles(session, baseline))
    calls = {call.number: call for call in faults.calls}
    paths: list[ErrorPath] = []
    found = list(plain.sites)
    for failure in faults.tried:
        injections = [one for one in faults.injections if one.failure == failure]
        ended = [one.cycle for one in injections if one.cycle is not None and one.crash is None]
        sites = _sites(session, ended, baseline) if ended else ()
        path = _path(len(paths) + 1, calls[failure.call], failure, injections, sites)
        paths.append(path)
        injected = Injected(path.number, _call(path.call), path.when)
        # Every format shows the evidence: none may show the site without it.
        said = Evidence("injected failure", f"{path.when}, which kleak made it do", 0.0)
        found += [
            replace(site, injected=injected, evidence=(said, *site.evidence)) for site in sites
        ]
    found.sort(key=lambda site: (-site.verdict, -site.score, -site.outstanding.size_bytes))
    return replace(
        plain,
        cycles=len(session.cycles),
        # Of the cycles without a failure alone there may be one; growth is asked of the others.
        trust=replace(
            plain.trust,
            witnesses={**plain.trust.witnesses, **_growth(session)},
        ),
        sites=_ranked(found),
        error_paths=ErrorPaths(
            tuple(paths),
            tuple(call for call in faults.calls if call.made == 0),
            faults.not_tried,
            tuple((calls[one.call], one.nth) for one in faults.left),
            len(faults.calls),
        ),
    )


def _growth(session: Session) -> dict[str, WitnessState]:
    known = session.trust.witnesses.get("growth")
    return {} if known is None else {"growth": known}


def _sites(
    session: Session, cycles: Sequence[int], baseline: Collection[int]
) -> tuple[JudgedSite, ...]:
    more = tuple(site for site in session.sites if _more(site, cycles, baseline))
    if not more:
        return ()
    usual = frozenset(
        (site.allocator, site.frames)
        for site in session.sites
        if any(site.cycles[cycle - 1].allocated.count for cycle in baseline)
        and not any(site.cycles[cycle - 1].outstanding.count > 0 for cycle in baseline)
    )
    judged = judge(of_cycles(replace(session, sites=more), cycles)).sites
    return tuple(_contrasted(site, usual) for site in judged)


def _contrasted(site: JudgedSite, usual: Collection[tuple[str, tuple[Frame, ...]]]) -> JudgedSite:
    """A name can be taken once, so no repetition shows that it stays each time; the cycles without
    the failure, which gave it back, show what the failure does.
    """
    names = any(one.witness == registered_names.NAME and one.weight > 0 for one in site.evidence)
    whole = (site.allocator, (*site.allocator_frames, *site.frames))
    if not names or whole not in usual:
        return site
    says = "without the failure it is given back, and its name goes"
    evidence = (*site.evidence, Evidence("contrast", says, CONTRAST))
    percent = verdict.score(evidence)
    surest = max(site.verdict, Verdict.LIKELY) if percent >= LIKELY_SCORE else site.verdict
    return replace(site, evidence=evidence, score=percent, verdict=surest)


def _more(site: TracedSite, cycles: Collection[int], baseline: Collection[int]) -> bool:
    usual = min((site.cycles[cycle - 1].outstanding.count for cycle in baseline), default=0)
    return any(
        site.cycles[cycle - 1].outstanding.count > max(usual, 0)
        for cycle in cycles
        if cycle <= len(site.cycles)
    )


def _path(
    number: int,
    call: FailedCall,
    failure: Failure,
    injections: Sequence[Injection],
    sites: tuple[JudgedSite, ...],
) -> ErrorPath:
    first = injections[0]
    crash = next((one.crash for one in injections if one.crash is not None), None)
    complaint = next((one.complaints for one in injections if one.complaints), "")
    if crash is not None:
        outcome = Outcome.CRASHED
    elif any(site.verdict >= Verdict.LIKELY for site in sites):
        outcome = Outcome.LEAKING
    elif complaint:
        outcome = Outcome.COMPLAINED
    elif any(site.score >= SUSPECT_SCORE for site in sites):
        outcome = Outcome.SUSPECT
    elif first.reached is False:
        outcome = Outcome.NOT_REACHED
    else:
        outcome = Outcome.TOLERATED if first.phase is None else Outcome.CLEAN
    return ErrorPath(
        number=number,
        call=call,
        nth=failure.nth,
        outcome=outcome,
        times=len(injections),
        phase=first.phase,
        said=first.said,
        when=_when(call, failure, first),
        log=complaint,
        crash=crash,
    )


def _ranked(found: Sequence[JudgedSite]) -> tuple[JudgedSite, ...]:
    """The sites, ranked together; what hangs on another site of its failure still does."""
    ranks = {
        (site.injected and site.injected.error_path, site.rank): rank
        for rank, site in enumerate(found, start=1)
    }
    ranked = []
    for rank, site in enumerate(found, start=1):
        parent = site.parent
        if parent is not None:
            of = site.injected and site.injected.error_path
            parent = replace(parent, rank=ranks[of, parent.rank])
        ranked.append(replace(site, rank=rank, parent=parent))
    return tuple(ranked)


def _call(call: FailedCall) -> str:
    return f"{call.function}() in {call.place.symbol}()"


def _when(call: FailedCall, failure: Failure, first: Injection) -> str:
    place = call.place
    where = "an unknown function" if place.symbol is None else f"{place.symbol}+{place.offset:#x}"
    if place.source is not None:
        where += f" {place.source.file}:{place.source.line}"
    time = "" if call.made == 1 else f", call {failure.nth} of {call.made}"
    said = f" ({first.phase}: {first.said})" if first.phase is not None else ""
    return f"when {call.function}() fails at {where}{time}{said}"
