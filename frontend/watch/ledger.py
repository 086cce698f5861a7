"""Reading the ledger of the running kernel again and again, for as long as it takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kleak.capture.engine.bcc_library import release_compiler
from kleak.capture.engine.declared import FAMILIES
from kleak.capture.engine.records import Counters
from kleak.capture.engine.sampling import Growth
from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Tracing
from kleak.capture.read_session import End, Observed, losses, read_session
from kleak.capture.running_names import RunningNames
from kleak.capture.scope import NamedScope
from kleak.capture.site_index import Row, SiteIndex
from kleak.capture.sites import guard_bytes_of
from kleak.capture.target.processes import follow_running, processes_refused
from kleak.capture.tracers import tracer_of_scope
from kleak.capture.witnesses.observer import Observer
from kleak.errors import UsageError
from kleak.frames.stacks import Frames
from kleak.model.session import Cycle, Frame, Session
from kleak.progress import Progress
from kleak.symbols.kernel_table import KernelTable
from kleak.watch.readings import Held, LiveSite, Reading, Since

MOST_MARKS = 999
# Ages are read from every outstanding allocation: so often that it takes this share of a core.
_SHARE_OF_AGES = 1 / 250
_SPARE_NAMES = 1024

# Fields that are read of a row of totals (key, value), and of an outstanding allocation.
_TOTALED = (
    ("stack", "cycle", "family"),
    ("allocated", "allocated_bytes", "freed", "freed_bytes"),
)
_AGED = ("stack", "time_ns", "cycle", "family")


@dataclass(frozen=True, slots=True)
class Watch:
    """What counts. ``pid``: only what that process and those that it starts allocate."""

    scope: NamedScope
    pid: int | None
    tracing: Tracing


@contextmanager
def open_ledger(watch: Watch, progress: Progress) -> Iterator[LiveLedger]:
    """Attach, and count from then on. Leaving the context detaches.

    Raises UnsupportedError where this machine cannot trace, UsageError and TargetError for the
    scope.
    """
    follows = watch.pid is not None
    tracer, table = tracer_of_scope(
        watch.scope, watch.tracing, progress, processes=follows, by_process=follows
    )
    with tracer:
        release_compiler()
        if watch.pid is not None:
            follow_running(tracer, watch.pid)
        yield LiveLedger(tracer, table, watch)


class LiveLedger:
    """The ledger of a tracer that counts, read as often as one likes."""

    def __init__(self, tracer: Tracer, table: KernelTable, watch: Watch) -> None:
        """Begin to count."""
        self._tracer = tracer
        self._watch = watch
        self._names = RunningNames(table, watch.scope.globs)
        self._sites = SiteIndex(tracer, self._names, _make_site)
        self._growth = Growth(tracer)
        self._observer = Observer(watch.scope.names, 1)
        self._observer.sample("start", 0, ())
        self._evict_at = watch.tracing.limits.stacks // 2
        self._full = 0
        self._ages: dict[Row, list[int]] = {}
        self._ages_at_ns = self._ages_due_ns = time.monotonic_ns()
        self._began_ns = [time.monotonic_ns()]  # the start, then the marks
        self._mark = tracer.count_allocations(True, cycle=1)

    @property
    def notes(self) -> Sequence[str]:
        """What this kernel does not let be traced."""
        return self._tracer.notes

    def mark(self) -> None:
        """Count what is allocated from now on apart. Raises UsageError after very many marks."""
        if len(self._began_ns) > MOST_MARKS:
            raise UsageError(f"{MOST_MARKS} marks are the most")
        self._began_ns.append(time.monotonic_ns())
        self._mark = self._tracer.count_allocations(True, cycle=len(self._began_ns))
        self._ages_due_ns = 0

    def tend(self) -> None:
        """Keep the maps from filling up. To be called every few seconds where nothing is read."""
        self._make_room(*self._fill(), self._tracer.counters())

    def read(self) -> Reading:
        """Return what is outstanding now."""
        now = time.monotonic_ns()
        stacks: set[int] = set()
        rows = 0
        start: dict[Row, list[int]] = {}
        marked: dict[Row, list[int]] = {}
        mark = self._mark
        for stack, cycle, family, made, made_bytes, freed, freed_bytes in self._rows_of_totals():
            rows += 1
            if not self._tracer.is_call_site(stack):
                stacks.add(stack)
            if made <= freed:
                continue
            place = (stack, 0, FAMILIES[family])
            _add(start, place, made - freed, made_bytes - freed_bytes)
            if cycle >= mark:
                _add(marked, place, made - freed, made_bytes - freed_bytes)
        if now >= self._ages_due_ns:
            self._read_ages()
        held = {Since.START: self._by_site(start, 0)}
        self._show_most_common(start)
        self._growth.note(self._by_call_site(start))
        began = {Since.START: self._began_ns[0]}
        if len(self._began_ns) > 1:
            held[Since.MARK] = self._by_site(marked, 1)
            began[Since.MARK] = self._began_ns[-1]
        if len(self._sites) > 2 * len(start) + _SPARE_NAMES:
            self._sites.forget_all_but(start)
            self._names.forget()
        counters = self._tracer.counters()
        lost = losses(counters)
        if self._watch.pid is not None and (unfollowed := processes_refused(self._tracer)):
            lost["processes_not_followed"] = unfollowed
        self._make_room(rows, len(stacks), counters)
        return Reading(
            now,
            held,
            began,
            len(self._began_ns) - 1,
            self._ages_at_ns,
            lost,
            self._tracer.evicted_stacks,
        )

    def session(self, keep: int) -> Session:
        """Return all that was seen so far; marks divide it into cycles."""
        ends = [*self._began_ns[1:], time.monotonic_ns()]
        cycles = [
            Cycle(index, begin, end)
            for index, (begin, end) in enumerate(zip(self._began_ns, ends, strict=True), start=1)
        ]
        notes = [
            "read while the kernel was at work: what is outstanding may be in use, and only what "
            "grows from mark to mark is suspicious"
        ]
        if self._tracer.evicted_stacks:
            notes.append(
                f"{self._tracer.evicted_stacks} times a stack of which nothing was outstanding was "
                "dropped to make room, and what it had allocated and freed before forgotten"
            )
        observed = Observed(
            self._watch.scope.target, cycles, self._names, self._observer, keep, tuple(notes)
        )
        return read_session(self._tracer, observed, End())

    def _rows_of_totals(self) -> Iterator[tuple[int, ...]]:
        return self._tracer.table("totals").fields(*_TOTALED)

    def _by_site(self, places: dict[Row, list[int]], which: int) -> dict[LiveSite, Held]:
        held: dict[LiveSite, Held] = {}
        for place, (count, size_bytes) in places.items():
            site = self._sites.add(*place)
            size_bytes -= count * guard_bytes_of(site.allocator)
            known = self._ages.get(place)
            oldest = None if known is None else known[which] or None
            before = held.get(site)
            if before is not None:
                count, size_bytes = count + before.objects, size_bytes + before.size_bytes
                oldest = min(filter(None, (oldest, before.oldest_ns)), default=None)
            held[site] = Held(count, size_bytes, oldest)
        return held

    def _show_most_common(self, places: dict[Row, list[int]]) -> None:
        """Give each site that is a call site the stack that most of its objects have."""
        most: dict[LiveSite, tuple[int, Frames]] = {}
        for place, (count, _) in places.items():
            site = self._sites.add(*place)
            frames = self._sites.walked(*place[:2]) if site.by_call_site else None
            if frames is not None and count > most.get(site, (0, ()))[0]:
                most[site] = count, frames
        for site, (_, frames) in most.items():
            site.show(frames)

    def _by_call_site(self, places: dict[Row, list[int]]) -> Counter[int]:
        """Objects outstanding of each call site; nothing where stacks are not sampled."""
        counts: Counter[int] = Counter()
        for place, (count, _) in places.items():
            if self._sites.add(*place).by_call_site:
                counts[self._sites.call_site(place[0])] += count
        return counts

    def _read_ages(self) -> None:
        """Find the oldest object of each stack: of all, and of those since the mark (0: none)."""
        began, worked_ns = time.monotonic_ns(), time.thread_time_ns()
        ages: dict[Row, list[int]] = {}
        mark = self._mark
        for stack, time_ns, cycle, family in self._tracer.table("outstanding").fields((), _AGED):
            row = (stack, 0, FAMILIES[family])
            known = ages.get(row)
            if known is None:
                ages[row] = [time_ns, time_ns if cycle >= mark else 0]
                continue
            if time_ns < known[0]:
                known[0] = time_ns
            if cycle >= mark and (time_ns < known[1] or not known[1]):
                known[1] = time_ns
        self._ages, self._ages_at_ns = ages, began
        worked_ns = time.thread_time_ns() - worked_ns
        self._ages_due_ns = began + int(worked_ns / _SHARE_OF_AGES)

    def _make_room(self, rows: int, stacks: int, counters: Counters) -> None:
        """Evict when half of the room that the last eviction left is taken."""
        limits = self._watch.tracing.limits
        room = limits.totals - limits.stacks  # more rows than stacks: epochs and marks make them
        taken = max(stacks, rows - room)
        full = counters.counted["stacks_full"] + counters.counted["totals_full"]
        if taken < self._evict_at and full == self._full:
            return
        self._full = full
        self._tracer.evict()
        rows, stacks = self._fill()
        left = max(stacks, rows - room)
        self._evict_at = left + max(1, (limits.stacks - left) // 2)

    def _fill(self) -> tuple[int, int]:
        """Number of rows, and of different stacks among them."""
        seen = [row[0] for row in self._rows_of_totals()]
        return len(seen), sum(not self._tracer.is_call_site(stack) for stack in set(seen))


def _add(places: dict[Row, list[int]], place: Row, count: int, size_bytes: int) -> None:
    known = places.get(place)
    if known is None:
        places[place] = [count, size_bytes]
    else:
        known[0] += count
        known[1] += size_bytes


def _make_site(allocator: str, frames: Frames, call_site: Frame | None) -> LiveSite:
    return LiveSite(allocator, frames, by_call_site=call_site is not None)
