"""Reading the ledger of the running kernel again and again, for as long as it takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kleak.capture.engine.bcc_library import release_compiler
from kleak.capture.engine.events import plan_here
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.ledger import FAMILIES
from kleak.capture.engine.records import Counters, Limits
from kleak.capture.engine.sampling import WALK_EVERY, Growth, is_call_site
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import loaded_modules, read_kernel_table
from kleak.capture.read_session import losses, read_session
from kleak.capture.scope import NamedScope
from kleak.capture.sites import allocator_of, guard_bytes_of
from kleak.capture.target.processes import follow_running, processes_refused
from kleak.capture.witnesses.kmemleak import NOT_ASKED
from kleak.capture.witnesses.observer import Observer
from kleak.errors import UsageError
from kleak.frames.stacks import strip_tracer
from kleak.model.session import Cycle, Frame, Session
from kleak.progress import Progress
from kleak.symbols.kernel_table import KernelTable
from kleak.symbols.symboliser import Symboliser
from kleak.watch.readings import Held, LiveSite, Reading, Since

MOST_MARKS = 999
# Ages are read from every outstanding allocation: so often that it takes this share of a core.
_SHARE_OF_AGES = 1 / 250
_SPARE_NAMES = 1024
_MODULES_EVERY_NS = 1_000_000_000

# Fields that are read of a row of totals (key, value), and of an outstanding allocation.
_TOTALED = (
    ("stack", "cycle", "family"),
    ("allocated", "allocated_bytes", "freed", "freed_bytes"),
)
_AGED = ("stack", "time_ns", "cycle", "family")

_Place = tuple[int, int]  # a stack's key and the number of a family


@dataclass(frozen=True, slots=True)
class Watch:
    """What counts. ``pid``: only what that process and those that it starts allocate.

    ``walk_every``: in a scope of everything or of own calls, one stack in so many is walked.
    """

    scope: NamedScope
    pid: int | None
    headers: str | None
    limits: Limits
    walk_every: int = WALK_EVERY


@contextmanager
def open_ledger(watch: Watch, progress: Progress) -> Iterator[LiveLedger]:
    """Attach, and count from then on. Leaving the context detaches.

    Raises UnsupportedError where this machine cannot trace, UsageError and TargetError for the
    scope.
    """
    progress.say("reading the kernel's types and symbols")
    table = read_kernel_table()
    scope = watch.scope.find(table)
    by_process = watch.pid is not None
    tracer = Tracer(
        plan_here(table, modules=False, processes=by_process),
        find_headers(watch.headers),
        symbols=scope.symbols,
        loaded=scope.loaded,
        by_process=by_process,
        own_calls=watch.scope.own_calls,
        limits=watch.limits,
        walk_every=watch.walk_every,
    )
    progress.say("compiling and attaching")
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
        self._names = _Names(tracer, table, watch.scope)
        self._growth = Growth(tracer)
        self._observer = Observer(watch.scope.names, 1)
        self._observer.sample("start", 0, ())
        self._evict_at = watch.limits.stacks // 2
        self._full = 0
        self._ages: dict[_Place, list[int]] = {}
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
        start: dict[_Place, list[int]] = {}
        marked: dict[_Place, list[int]] = {}
        mark = self._mark
        for stack, cycle, family, made, made_bytes, freed, freed_bytes in self._rows_of_totals():
            rows += 1
            if not self._tracer.is_call_site(stack):
                stacks.add(stack)
            if made <= freed:
                continue
            place = (stack, family)
            _add(start, place, made - freed, made_bytes - freed_bytes)
            if cycle >= mark:
                _add(marked, place, made - freed, made_bytes - freed_bytes)
        if now >= self._ages_due_ns:
            self._read_ages()
        held = {Since.START: self._by_site(start, 0)}
        self._names.show_most_common(start)
        self._growth.note(self._names.by_call_site(start))
        began = {Since.START: self._began_ns[0]}
        if len(self._began_ns) > 1:
            held[Since.MARK] = self._by_site(marked, 1)
            began[Since.MARK] = self._began_ns[-1]
        self._names.forget_all_but(start)
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
        return read_session(
            self._tracer,
            self._watch.scope.target,
            cycles,
            lambda address, cycle: self._names.resolve(address),
            self._observer,
            finished=True,
            keep=keep,
            kmemleak=NOT_ASKED,
            notes=notes,
        )

    def _rows_of_totals(self) -> Iterator[tuple[int, ...]]:
        return self._tracer.table("totals").fields(*_TOTALED)

    def _by_site(self, places: dict[_Place, list[int]], which: int) -> dict[LiveSite, Held]:
        held: dict[LiveSite, Held] = {}
        for place, (count, size_bytes) in places.items():
            site = self._names.site(place)
            size_bytes -= count * guard_bytes_of(site.allocator)
            known = self._ages.get(place)
            oldest = None if known is None else known[which] or None
            before = held.get(site)
            if before is not None:
                count, size_bytes = count + before.objects, size_bytes + before.size_bytes
                oldest = min(filter(None, (oldest, before.oldest_ns)), default=None)
            held[site] = Held(count, size_bytes, oldest)
        return held

    def _read_ages(self) -> None:
        """Find the oldest object of each stack: of all, and of those since the mark (0: none)."""
        began, worked_ns = time.monotonic_ns(), time.thread_time_ns()
        ages: dict[_Place, list[int]] = {}
        mark = self._mark
        for stack, time_ns, cycle, family in self._tracer.table("outstanding").fields((), _AGED):
            known = ages.get((stack, family))
            if known is None:
                ages[stack, family] = [time_ns, time_ns if cycle >= mark else 0]
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
        limits = self._watch.limits
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


def _add(places: dict[_Place, list[int]], place: _Place, count: int, size_bytes: int) -> None:
    known = places.get(place)
    if known is None:
        places[place] = [count, size_bytes]
    else:
        known[0] += count
        known[1] += size_bytes


class _Names:
    """Names each stack once. Forgets those of which nothing is outstanding any more."""

    def __init__(self, tracer: Tracer, table: KernelTable, scope: NamedScope) -> None:
        self._tracer = tracer
        self._table = table
        self._globs = scope.globs
        self._symbols = Symboliser(table)
        self._modules = frozenset(loaded_modules())
        self._modules_due_ns = 0
        self._sites: dict[_Place, LiveSite] = {}
        self._known: dict[tuple[str, tuple[Frame, ...]], LiveSite] = {}
        # Where stacks are sampled, by stack: its call site, and its frames.
        self._call_sites: dict[int, int] = {}
        self._frames: dict[int, tuple[Frame, ...]] = {}

    def site(self, place: _Place) -> LiveSite:
        """Return the site of a stack and family."""
        site = self._sites.get(place)
        if site is None:
            stack, family = place
            addresses = self._tracer.stack(stack)
            frames = strip_tracer([self.resolve(address) for address in addresses])
            call_site = self._tracer.call_site(stack)
            if call_site:
                self._call_sites[stack], self._frames[stack] = call_site, frames
                frames = (self.resolve(call_site),)
            allocator = allocator_of(FAMILIES[family], frames)
            site = self._known.setdefault(
                (allocator, frames), LiveSite(allocator, frames, by_call_site=bool(call_site))
            )
            self._sites[place] = site
        return site

    def show_most_common(self, places: dict[_Place, list[int]]) -> None:
        """Give each site that is a call site the stack that most of its objects have."""
        most: dict[LiveSite, tuple[int, int]] = {}
        for place, (count, _) in places.items():
            stack = place[0]
            if stack in self._frames and not is_call_site(stack):
                site = self._sites[place]
                most[site] = max(most.get(site, (0, 0)), (count, stack))
        for site, (_, stack) in most.items():
            site.show(self._frames[stack])

    def by_call_site(self, places: dict[_Place, list[int]]) -> Counter[int]:
        """Objects outstanding of each call site; nothing where stacks are not sampled."""
        counts: Counter[int] = Counter()
        for (stack, _), (count, _) in places.items():
            if stack in self._call_sites:
                counts[self._call_sites[stack]] += count
        return counts

    def resolve(self, address: int) -> Frame:
        """Name a return address, also of a module that was loaded since the start."""
        frame = self._symbols.resolve(address, 0)
        # The tracer's own programs have no names either: ask once for many addresses.
        if frame.symbol is None and time.monotonic_ns() >= self._modules_due_ns:
            self._modules_due_ns = time.monotonic_ns() + _MODULES_EVERY_NS
            modules = frozenset(loaded_modules())
            if not modules <= self._modules:
                self._table = read_kernel_table()
                for glob in self._globs:
                    self._table.prefer(glob)
                self._symbols = Symboliser(self._table)
                frame = self._symbols.resolve(address, 0)
            self._modules = modules
        return frame

    def forget_all_but(self, places: dict[_Place, list[int]]) -> None:
        """Forget other places, if there are many."""
        if len(self._sites) <= 2 * len(places) + _SPARE_NAMES:
            return
        self._sites = {place: self._sites[place] for place in places if place in self._sites}
        self._known = {(site.allocator, site.origin): site for site in self._sites.values()}
        stacks = {stack for stack, _ in self._sites}
        self._call_sites = {key: at for key, at in self._call_sites.items() if key in stacks}
        self._frames = {key: frames for key, frames in self._frames.items() if key in stacks}
        self._symbols = Symboliser(self._table)
