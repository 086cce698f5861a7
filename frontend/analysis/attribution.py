"""Whose a site is, where several modules were observed, and which of its cycles are over.

The tracer counts a cycle for each load of each module. A leak is charged to the module whose frame
is innermost, and grows with that module's loads: so its cycles become these. What a module holds
that is still loaded is no leak, and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kleak.frames.scope import in_scope
from kleak.frames.stacks import Frames
from kleak.model.session import Cycle, CycleTally, Session, Tally, Target, TracedSite

_NOTHING = CycleTally(Tally(), Tally())


@dataclass(frozen=True, slots=True)
class Attribution:
    """A site by the cycles of the module it is charged to, and the session of that module.

    ``held`` is what the module still held when the capture ended, or None.
    """

    site: TracedSite
    session: Session
    held: TracedSite | None


def modules_on(frames: Frames, target: Target) -> tuple[str, ...]:
    """Names of the target's modules on a stack, each once, the innermost first."""
    if target.kind != "module":
        return ()
    found = (frame.module for frame in frames if in_scope(frame, target))
    return tuple(dict.fromkeys(name for name in found if name is not None))


def count_cycles(session: Session) -> dict[str, int]:
    """The finished loads of each module, by name in order of first load; all, if none is finished.

    Empty for a session in which nothing was loaded.
    """
    if session.target.kind != "module":
        return {}
    return {
        name: len(_finished([session.cycles[at] for at in own]))
        for name, own in _loads(session).items()
    }


def attribute(site: TracedSite, session: Session) -> Attribution:
    """Charge ``site`` to the innermost of the target's modules on its stack that was loaded.

    A site without any is left as it is.
    """
    loads = _loads(session)
    charged = next((n for n in modules_on(site.frames, session.target) if n in loads), None)
    if charged is None:
        return Attribution(site, session, None)
    own = loads[charged]
    cycles = [session.cycles[at] for at in own]
    finished = _finished(cycles)
    # Own cycle of each of the session's: the module's last load before it.
    places = [max(0, sum(at <= number for at in own) - 1) for number in range(len(session.cycles))]
    tallies = [_NOTHING] * len(own)
    for tally, place in zip(site.cycles, places, strict=True):
        tallies[place] = _add(tallies[place], tally)
    rest = sum((tally.outstanding.count for tally in tallies[len(finished) :]), 0)
    # Session files have been written with allocations of a cycle that came after all of theirs.
    own_cycle = {at: place + 1 for at, place in enumerate(places, 1) if place < len(finished)}
    kept = [one._replace(cycle=own_cycle[one.cycle]) for one in site.kept if one.cycle in own_cycle]
    judged = replace(
        site,
        cycles=tuple(tallies[: len(finished)]),
        requested_bytes=site.requested_bytes if not rest else None,
        kept=tuple(kept),
    )
    renumbered = tuple(replace(cycle, index=i) for i, cycle in enumerate(finished, start=1))
    held = replace(site, cycles=tuple(tallies[len(finished) :])) if rest else None
    return Attribution(judged, replace(session, cycles=renumbered), held)


def _loads(session: Session) -> dict[str, list[int]]:
    """Places in ``session.cycles`` of each module's loads."""
    found: dict[str, list[int]] = {}
    for place, cycle in enumerate(session.cycles):
        found.setdefault(cycle.module or session.target.name, []).append(place)
    return found


def _finished(cycles: Sequence[Cycle]) -> Sequence[Cycle]:
    """``cycles`` without the last, if that is not over and there are others."""
    return cycles[:-1] if len(cycles) > 1 and cycles[-1].unloaded_at_ns is None else cycles


def _add(one: CycleTally, other: CycleTally) -> CycleTally:
    return CycleTally(
        _sum(one.allocated, other.allocated),
        _sum(one.freed, other.freed),
    )


def _sum(one: Tally, other: Tally) -> Tally:
    return Tally(one.count + other.count, one.size_bytes + other.size_bytes)
