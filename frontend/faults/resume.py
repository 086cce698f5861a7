"""Going on with a session that a crash ended: what both captures saw is one session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kleak.capture.witnesses.observer import Recorder
from kleak.errors import UsageError
from kleak.faults.prepare import Prepared
from kleak.model.faults import FailedCall, FaultRun
from kleak.model.session import CycleTally, Session, Tally, TracedSite, Trust

_NOTHING = CycleTally(Tally(), Tally())


def check_fits(earlier: Session, prepared: Prepared, name: str) -> FaultRun:
    """Return the faults of ``earlier``, which the file ``name`` has.

    Raises UsageError unless it is of this build of the module, with failures left to try.
    """
    if earlier.faults is None:
        raise UsageError(f"--resume {name}: no calls failed on purpose in it")
    build = prepared.target.image.build_id
    if (earlier.target.name, earlier.target.build_id) != (prepared.target.name, build):
        raise UsageError(f"--resume {name}: it is of another module or another build of it")
    if _told(earlier.faults.calls) != _told(prepared.calls):
        raise UsageError(f"--resume {name}: other calls can fail on this kernel")
    if not earlier.faults.left:
        raise UsageError(f"--resume {name}: nothing is left to try")
    return earlier.faults


class Joining:
    """A recorder that keeps a later capture together with the earlier one."""

    def __init__(self, recorder: Recorder, earlier: Session) -> None:
        """Keep them with ``recorder``."""
        self._recorder = recorder
        self._earlier = earlier

    def save(self, session: Session) -> None:
        """See Recorder."""
        self._recorder.save(join(self._earlier, session))


def join(earlier: Session, later: Session) -> Session:
    """Return one session of both; the cycles of ``later`` come behind those of ``earlier``.

    What is outstanding of the earlier one was read in another boot: its addresses mean nothing any
    more, and only its numbers are kept.
    """
    before, after = len(earlier.cycles), len(later.cycles)
    cycles = (
        *earlier.cycles,
        *(replace(cycle, index=before + cycle.index) for cycle in later.cycles),
    )
    known = {(site.allocator, site.frames): site for site in later.sites}
    sites = []
    for site in earlier.sites:
        now = known.pop((site.allocator, site.frames), None)
        tallies = (_NOTHING,) * after if now is None else now.cycles
        one = replace(site, kept=(), reachability=None, requested_bytes=None)
        sites.append(replace(one, cycles=(*site.cycles, *tallies)))
    sites += [_behind(site, before) for site in known.values()]
    return replace(
        later,
        cycles=cycles,
        sites=tuple(sites),
        trust=_both(earlier.trust, later.trust),
        faults=_join_faults(earlier.faults, later.faults, before),
    )


def _behind(site: TracedSite, before: int) -> TracedSite:
    kept = tuple(one._replace(cycle=before + one.cycle) for one in site.kept)
    return replace(site, cycles=((_NOTHING,) * before + tuple(site.cycles)), kept=kept)


def _both(earlier: Trust, later: Trust) -> Trust:
    lost = dict(later.lost)
    for reason, number in earlier.lost.items():
        # What the crash cut off is what the later one goes on with.
        if reason not in ("cycles_cut_off", "final_wait_cut_short"):
            lost[reason] = lost.get(reason, 0) + number
    return replace(later, lost=lost)


def _join_faults(earlier: FaultRun | None, later: FaultRun | None, before: int) -> FaultRun | None:
    if earlier is None or later is None:
        return later or earlier
    moved = (
        replace(one, cycle=None if one.cycle is None else before + one.cycle)
        for one in later.injections
    )
    began = any(call.made for call in later.calls)
    return FaultRun(
        later.calls if began else earlier.calls,
        later.not_tried,
        (*earlier.injections, *moved),
        later.left if began else earlier.left,
    )


def _told(calls: Sequence[FailedCall]) -> list[tuple[str, str | None, int]]:
    return [(call.function, call.place.symbol, call.place.offset) for call in calls]
