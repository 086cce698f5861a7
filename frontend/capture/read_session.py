"""Reading a capture out of the kernel: the Session, with what the tracer missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kleak.capture.engine.declared import FIRST_WALKS
from kleak.capture.engine.records import Counters
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel, read_vmalloc_regions
from kleak.capture.pointers.joined import JoinedPointers
from kleak.capture.pointers.question import NOT_SEARCHED, PointerResult
from kleak.capture.site_index import Names
from kleak.capture.sites import build_sites
from kleak.capture.witnesses.kmemleak import NOT_ASKED, KmemleakResult
from kleak.capture.witnesses.observer import Observer
from kleak.capture.witnesses.page_holders import PageHolders
from kleak.capture.witnesses.pointers import read_pointers
from kleak.capture.witnesses.reachability import Joined
from kleak.errors import KleakError, StoppedWaitingError
from kleak.gc_pause import no_collection
from kleak.model.session import (
    CYCLES_CUT_OFF,
    FINAL_WAIT_CUT_SHORT,
    Answer,
    Cycle,
    Session,
    Target,
    Trust,
)
from kleak.model.witnesses import USED, WitnessState, not_asked

KEPT_OF_A_SITE = 1000
SHOWN_CACHES = 5

# What each counter means for a result. Named for the reader of a report.
LOSSES = {
    "ledger_full": "allocations_beyond_max_outstanding",
    "stacks_full": "allocations_beyond_max_stacks",
    "totals_full": "allocations_beyond_max_totals",
    "no_stack": "allocations_without_stack",
    "nested": "allocations_in_interrupted_walks",
    "delete_refused": "frees_refused_by_the_map",
    "loads_full": "module_loads_beyond_the_map",
    "loads_outside": "module_loads_outside_the_scope",
    "bulk_beyond": "bulk_calls_beyond_512_objects",
}
OBSERVED = {
    "allocated": "allocations",
    "freed": "frees",
    "foreign_frees": "frees_of_unseen_allocations",
    "walks": "stack_walks",
}
REPAIRS = {
    "repaired_frees": "frees_seen_by_second_program",
    "repaired_allocations": "allocations_seen_by_second_program",
    "double_events": "double_allocation_events",
    "reused_addresses": "frees_inferred_from_address_reuse",
}
UNREPORTED = frozenset({"owned_pages"})  # counted as the memory that was made of them


@dataclass(frozen=True, slots=True)
class Observed:
    """What a tracer saw, in words: ``target`` in ``cycles``, in which addresses have ``names``.

    ``keep``: outstanding allocations kept of a site. ``notes`` are sentences for the reader.
    """

    target: Target
    cycles: Sequence[Cycle]
    names: Names
    observer: Observer
    keep: int = KEPT_OF_A_SITE
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The end of a capture: no more cycles will come. ``kmemleak``: what it said of what is
    outstanding, or why it was not asked; ``pointers``: what a search of memory found. ``cut``: see
    cut_off().
    """

    kmemleak: KmemleakResult = NOT_ASKED
    pointers: PointerResult = NOT_SEARCHED
    cut: Mapping[str, int] = field(default_factory=dict)


class _Witnesses:
    """What came of asking each witness; and what they said, word for word."""

    def __init__(self) -> None:
        self.states = {"outstanding": USED, "growth": USED}
        self.answers: list[Answer] = []

    def note(self, name: str, state: WitnessState, text: str | None = None) -> None:
        """Note what came of asking one of them, now."""
        self.states[name] = state
        if text is not None:
            self.answers.append(Answer(name, time.monotonic_ns(), text))


def read_session(tracer: Tracer, observed: Observed, end: End | None) -> Session:
    """Return what ``tracer`` saw so far; ``end`` is None where more is to come.

    Reads /proc/vmallocinfo too; at the end the memory of kept objects, for pointers.
    """
    witnesses = _Witnesses()
    areas = read_vmalloc_regions()
    witnesses.note("vmallocinfo", areas.state, areas.text)
    kmemleak = NOT_ASKED if end is None else end.kmemleak
    witnesses.note("kmemleak", kmemleak.state, kmemleak.text)
    pointers = NOT_SEARCHED if end is None else end.pointers
    witnesses.note("reachability", pointers.state)
    witnesses.note("pointers", not_asked("memory is read at the end only"))
    counters = tracer.counters()
    with no_collection(), PageHolders(tracer.direct_map) as pages:
        sites = build_sites(
            tracer,
            observed.names,
            cycles=len(observed.cycles),
            keep=observed.keep,
            holder=pages.holder,
            kmemleak=Joined(kmemleak) if kmemleak.state.used else None,
            pointers=JoinedPointers(pointers.said) if pointers.state.used else None,
            name_of=_process_names(tracer),
        )
        witnesses.note("page_owner", pages.owner_state)
    observed_events = {name: counters.counted[counter] for counter, name in OBSERVED.items()}
    observed_events["frees_while_reading"] = tracer.counters().gone - counters.gone
    if end is not None:
        among_kept = read_pointers(sites)
        witnesses.note("pointers", among_kept.state, among_kept.text)
    about = observed.observer.describe(sites, witnesses.answers, finished=end is not None)
    trust = Trust(
        losses(counters) | dict(end.cut if end is not None else {}),
        _nonzero(counters.counted, REPAIRS),
        observed_events,
        tracer.means,
        witnesses.states | observed.observer.witnesses,
        (
            *tracer.notes,
            *_sampling(tracer),
            *_own_calls(tracer),
            *observed.notes,
            *pointers.notes,
            *_remarks(counters, tracer.reused_by_cache()),
        ),
    )
    return Session(
        read_kernel(),
        observed.target,
        tuple(observed.cycles),
        sites,
        trust,
        areas.regions,
        about,
    )


def cut_off(cycles: int, failure: KleakError | None) -> dict[str, int]:
    """Return what the end of a capture took from it, by its name in reports.

    ``cycles``: how many were planned and did not come to their end. ``failure``: what ended it.
    """
    cut = {CYCLES_CUT_OFF: cycles} if cycles > 0 else {}
    return cut | ({FINAL_WAIT_CUT_SHORT: 1} if isinstance(failure, StoppedWaitingError) else {})


def losses(counters: Counters) -> dict[str, int]:
    """Return what was lost that may change a result, by its name in reports."""
    lost = _nonzero(counters.counted, LOSSES)
    for event, number in counters.lost_events().items():
        lost[f"missed_{event}_events"] = number
    return lost


def _nonzero(counted: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    return {name: counted[counter] for counter, name in names.items() if counted[counter]}


def _process_names(tracer: Tracer) -> Callable[[int], str]:
    """Return what names a process by its id, as it is called now.

    That is "" where it has ended, or /proc has other ids.
    """
    known = tracer.proc_level == 0

    @cache
    def name_of(tgid: int) -> str:
        if not known:
            return ""
        try:
            return Path(f"/proc/{tgid}/comm").read_text(errors="replace").rstrip("\n")
        except OSError:
            return ""

    return name_of


def _sampling(tracer: Tracer) -> list[str]:
    if tracer.walk_every == 1:
        return []
    return [
        f"stacks were sampled: of each call site those of the first {FIRST_WALKS} allocations in a "
        f"cycle, then one in {tracer.walk_every}, and more where it grew; counts are exact, and "
        "what comes from one call site is one site"
    ]


def _own_calls(tracer: Tracer) -> list[str]:
    if not tracer.own_calls:
        return []
    return [
        "only what functions in scope allocate by their own call was counted (--own-calls); memory "
        "whose event has no call site (pages, vmalloc, per-CPU, DMA, bulk) counts by the whole "
        "stack"
    ]


def _remarks(counters: Counters, reused_by_cache: Mapping[str, int]) -> list[str]:
    remarks = []
    reused = counters.counted["reused_addresses"]
    if reused:
        most = sorted(reused_by_cache.items(), key=lambda row: -row[1])
        caches = ", ".join(f"{count} of {name}" for name, count in most[:SHOWN_CACHES])
        remarks.append(
            f"{reused} objects were freed without any event (their addresses came up again: "
            f"{caches}): what else went that way may look outstanding"
        )
    return remarks
