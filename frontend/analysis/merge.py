"""Several sessions of one target, of a fleet or of many kernels, as one report.

A site is told by the frames from the allocator's caller to the target's outermost one. In sessions
of the same build (kernel release and build-id) it is the same if these are. Between builds offsets
and lines move, so there it is the same if the functions are; sites of one build that this does not
tell apart (two calls in one function) are matched in the order of their offsets.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from kleak.analysis.grouping import Hanging, arrange
from kleak.errors import UsageError
from kleak.frames.names import base_name
from kleak.frames.scope import in_scope
from kleak.frames.stacks import Frames
from kleak.model.report import Evidence, JudgedSite, MergedSession, Report, Sighting
from kleak.model.session import Session, StackSample, Tally, Target, Trust
from kleak.model.witnesses import USED, WitnessState
from kleak.wording import plural

_Build = tuple[str, str | None]
SitePath = tuple[str, tuple[tuple[str, str], ...]]
"""The allocator, and the module and function of each frame: the same in another build."""
SiteKey = tuple[SitePath, int]
"""Equal for the same site in any session."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A session, the name of its file, and what was concluded from it."""

    name: str
    session: Session
    report: Report


def merge(judged: Sequence[Judged]) -> Report:
    """Return one report over ``judged``, of which there is at least one.

    A site's numbers are summed, its verdict and evidence are those of the session that is surest
    of it. Raises UsageError for sessions of different targets.
    """
    if len(judged) == 1:
        return judged[0].report
    target = judged[0].report.target
    for other in judged[1:]:
        if (other.report.target.kind, other.report.target.name) != (target.kind, target.name):
            raise UsageError(
                f"{judged[0].name} is of {target.kind} {target.name}, {other.name} of "
                f"{other.report.target.kind} {other.report.target.name}: only sessions of the "
                "same target can be merged"
            )
    merged: defaultdict[SiteKey, list[tuple[Judged, JudgedSite]]] = defaultdict(list)
    for one, keys in zip(judged, site_keys(judged), strict=True):
        for site, key in zip(one.report.sites, keys, strict=True):
            merged[key].append((one, site))
    order = {key: _merge_site(same, len(judged)) for key, same in merged.items()}
    ranking = sorted(order, key=lambda key: _order(order[key]))
    newest = max(judged, key=_started_at)
    return Report(
        kernel=newest.report.kernel,
        target=newest.report.target,
        cycles=sum(one.report.cycles for one in judged),
        trust=_merge_trust(judged),
        sites=arrange([order[key] for key in ranking], _hanging(ranking, merged)),
        merged=tuple(_describe(one) for one in sorted(judged, key=_started_at)),
    )


def site_keys(judged: Sequence[Judged]) -> list[list[SiteKey]]:
    """For each session, for each of its report's sites, what is equal for the same site."""
    stacks: defaultdict[tuple[_Build, SitePath], set[Frames]] = defaultdict(set)
    for one in judged:
        for site in one.report.sites:
            shown = _telling(site, one.report.target)
            stacks[_build(one), _path(site.allocator, shown)].add(shown)
    order = {
        (build, path, frames): position
        for (build, path), same in stacks.items()
        for position, frames in enumerate(sorted(same, key=_offsets))
    }
    return [
        [
            (path, order[_build(one), path, shown])
            for site in one.report.sites
            for shown in (_telling(site, one.report.target),)
            for path in (_path(site.allocator, shown),)
        ]
        for one in judged
    ]


def site_path(site: JudgedSite, target: Target) -> SitePath:
    """What is equal for the same site in any build, and for other calls in the same functions."""
    return _path(site.allocator, _telling(site, target))


def site_id(key: SiteKey) -> str:
    """A short name for a key of :func:`site_keys`, the same wherever the same site occurs."""
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def _build(one: Judged) -> _Build:
    return one.report.kernel.release, one.report.target.build_id


def _telling(site: JudgedSite, target: Target) -> Frames:
    """The frames that tell a site: from the allocator's caller to the target's outermost one.

    Where stacks were sampled, the call site alone: which of its stacks is shown may differ.
    """
    if site.stacks is not None:
        return (site.stacks.call_site,)
    last = max((i for i, frame in enumerate(site.frames) if in_scope(frame, target)), default=None)
    return site.frames if last is None else site.frames[: last + 1]


def _path(allocator: str, shown: Frames) -> SitePath:
    return allocator, tuple((frame.module or "", base_name(frame.symbol or "")) for frame in shown)


def _offsets(frames: Frames) -> tuple[int, ...]:
    return tuple(frame.offset for frame in frames)


def _started_at(one: Judged) -> float:
    return one.session.circumstances.started_at or 0.0


def _surest(same: Sequence[tuple[Judged, JudgedSite]]) -> tuple[Judged, JudgedSite]:
    return max(same, key=lambda pair: (pair[1].verdict, pair[1].score))


def _hanging(
    ranking: Sequence[SiteKey], merged: Mapping[SiteKey, Sequence[tuple[Judged, JudgedSite]]]
) -> Iterator[Hanging]:
    """What hangs on what, by places in ``ranking``, as the session has it that is surest of it.

    It may say that a site hangs on itself, and two that one hangs on the other and the other on it:
    a line that is reached in two ways is one site here and two there.
    """
    places = {
        (one.name, site.rank): position
        for position, key in enumerate(ranking)
        for one, site in merged[key]
    }
    for position, key in enumerate(ranking):
        one, site = _surest(merged[key])
        if site.parent is not None:
            yield position, places[one.name, site.parent.rank], site.parent.by, site.parent.says


def _merge_site(same: Sequence[tuple[Judged, JudgedSite]], sessions: int) -> JudgedSite:
    _, best = _surest(same)
    requested = [site.requested_bytes for _, site in same if site.requested_bytes is not None]
    sightings: dict[str, Sighting] = {}
    for one, site in sorted(same, key=lambda pair: _started_at(pair[0])):
        before = sightings.get(one.name)
        sightings[one.name] = Sighting(
            one.name,
            _sum([site.outstanding] + ([before.outstanding] if before else [])),
            max(site.verdict, before.verdict) if before else site.verdict,
        )
    kernels = {one.report.kernel.release for one, _ in same}
    dates = [one.session.circumstances.started_at for one, _ in same]
    first = min((date for date in dates if date is not None), default=None)
    since = "" if first is None else f" since {_day(first)}"
    says = (
        f"seen in {len(sightings)} of {sessions} sessions{since}, on "
        f"{plural(len(kernels), 'kernel')}: "
        f"{', '.join(sorted(kernels))}"
    )
    return replace(
        best,
        outstanding=_sum([site.outstanding for _, site in same]),
        per_cycle=None,
        requested_bytes=sum(requested) if len(requested) == len(same) else None,
        evidence=(*best.evidence, Evidence("sessions", says, 0.0)),
        stacks=_merge_samples([site for _, site in same], best),
        sightings=tuple(sightings.values()),
    )


def _merge_samples(same: Sequence[JudgedSite], best: JudgedSite) -> StackSample | None:
    """What is known of the stacks of a site in several sessions; that of ``best`` is shown.

    How many differ is not known beyond what one session has.
    """
    samples = [site.stacks for site in same if site.stacks is not None]
    if best.stacks is None or len(samples) < len(same):
        return None
    return replace(
        best.stacks,
        walked=sum(one.walked for one in samples),
        different=max(one.different for one in samples),
    )


def _day(started_at: float) -> str:
    return datetime.fromtimestamp(started_at, timezone.utc).strftime("%Y-%m-%d")


def _sum(tallies: Sequence[Tally]) -> Tally:
    return Tally(sum(one.count for one in tallies), sum(one.size_bytes for one in tallies))


def _merge_trust(judged: Sequence[Judged]) -> Trust:
    lost: defaultdict[str, int] = defaultdict(int)
    repaired: defaultdict[str, int] = defaultdict(int)
    observed: defaultdict[str, int] = defaultdict(int)
    means: dict[str, str] = {}
    witnesses: dict[str, WitnessState] = {}
    notes = []
    for one in judged:
        trust = one.report.trust
        for reason, number in trust.lost.items():
            lost[reason] += number
        for reason, number in trust.repaired.items():
            repaired[reason] += number
        for event, number in trust.observed.items():
            observed[event] += number
        for event, how in trust.means.items():
            known = means.setdefault(event, how)
            if how not in known.split(" or "):
                means[event] = f"{known} or {how}"
        for witness, state in trust.witnesses.items():
            if witnesses.get(witness, USED).used:
                witnesses[witness] = state
        notes += [f"{one.name}: {note}" for note in trust.notes]
    return Trust(dict(lost), dict(repaired), dict(observed), means, witnesses, tuple(notes))


def _describe(one: Judged) -> MergedSession:
    report = one.report
    return MergedSession(
        one.name,
        report.kernel,
        report.target.build_id,
        one.session.circumstances.started_at,
        report.cycles,
        report.trust.complete,
    )


def _order(site: JudgedSite) -> tuple[object, ...]:
    key = tuple((frame.module or "", frame.symbol or "", frame.offset) for frame in site.frames)
    return (-site.verdict, -len(site.sightings), -site.score, -site.outstanding.size_bytes, key)
