"""Asking, at the end of a capture, which outstanding objects nothing points to any more."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kleak.capture.engine.events import read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.hooks import offset
from kleak.capture.engine.records import LedgerEntry
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import loaded_modules, read_vmalloc_regions
from kleak.capture.pointers.areas import Areas
from kleak.capture.pointers.free_pages import FreePages
from kleak.capture.pointers.holders import Holders, Machine
from kleak.capture.pointers.layout import find_layout, private_data
from kleak.capture.pointers.objects import AREAS, IN_SLABS, MOST_PAGES, PAGES, Objects, WantedObject
from kleak.capture.pointers.page_flags import SLAB, PageFlags
from kleak.capture.pointers.page_tables import PageTables
from kleak.capture.pointers.programs import ScanPrograms
from kleak.capture.pointers.search import Answer, GaveUpError, Search, close
from kleak.capture.pointers.slabs import Slabs
from kleak.capture.pointers.symbols import DataSymbols
from kleak.capture.pointers.tasks import Tasks
from kleak.errors import UnsupportedError
from kleak.model.witnesses import USED, WitnessState, absent, not_asked, refused
from kleak.parsers.btf import AmbiguousTypeError
from kleak.parsers.errors import ParseError
from kleak.progress import Progress

SECONDS = 60.0
"""What the searches of one capture may take, if nothing else is asked for."""

MIN_AGE_S = 5.0
"""An object is younger while it is being set up: its address may be in a register only."""

OBJECTS_OF_A_STACK = 128
LEAST_OF_A_STACK = 4
OBJECTS_IN_ALL = 20_000
_SEARCHES = 2
LARGEST_IN_SLAB_PAGES = 2
"""Of kmalloc, what is larger has pages of its own (KMALLOC_MAX_CACHE_SIZE of linux/slab.h)."""
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Said:
    """What was found of an object that was outstanding all the time.

    ``referenced`` is None where it cannot be told whether what leads to it is there still.
    ``holder`` names what leads to it; ``holder_object`` is the address of another object of the
    ledger that does.
    """

    time_ns: int
    referenced: bool | None
    holder: str = ""
    holder_object: int | None = None


@dataclass(frozen=True, slots=True)
class PointerResult:
    """``state``: whether memory was searched. ``said`` is by the address in the ledger."""

    state: WitnessState
    said: Mapping[int, Said] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


NOT_SEARCHED = PointerResult(not_asked("memory is searched at the end of a session only"))


class PointerSearch:
    """The question, for the length of a capture."""

    def __init__(self, seconds: float, headers: str | None) -> None:
        """Search for ``seconds`` at most; with 0 not at all. ``headers`` names a header tree."""
        self._seconds, self._headers = seconds, headers
        off = PointerResult(not_asked("--no-pointers"))
        self.result = off if seconds == 0 else NOT_SEARCHED

    def ask(self, tracer: Tracer, progress: Progress) -> None:
        """Search, and keep what was found in ``result``. Ctrl-C raises KeyboardInterrupt."""
        if self._seconds == 0:
            return
        tracer.forget_scratch()
        began = time.monotonic()
        try:
            with _gives_way(), ScanPrograms(find_headers(self._headers)) as programs:
                self.result = _Question(tracer, programs, began + self._seconds, progress).ask()
        except GaveUpError as error:
            self.result = PointerResult(refused(str(error)))
        except (UnsupportedError, OSError, AmbiguousTypeError, ParseError) as error:
            self.result = PointerResult(absent(str(error)))


@contextmanager
def _gives_way() -> Iterator[None]:
    """Let all other work go first."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


class _Question:
    def __init__(
        self, tracer: Tracer, programs: ScanPrograms, until: float, progress: Progress
    ) -> None:
        self._tracer, self._programs, self._until = tracer, programs, until
        self._progress = progress
        self._btf = read_btf()
        self._layout = find_layout(programs, self._btf)
        layout = self._layout
        programs.set_layout(
            layout.direct,
            layout.frames * layout.page_bytes,
            layout.memmap,
            layout.frames * layout.struct_page_bytes,
        )
        blocks = programs.scratch_blocks()
        copies = private_data(programs, self._btf, programs.map_fds["block_copy"])
        pointer = programs.word(copies + offset(self._btf, "bpf_array", "pptrs"))
        self._per_cpu = {cpu: block - pointer & _WORD for cpu, block in blocks.items()}
        self._own_blocks = tuple(blocks.values())

    def ask(self) -> PointerResult:
        entries = self._old_entries()
        wanted = [one for entry in entries if (one := self._wanted(entry)) is not None]
        wanted = _small_enough(wanted, self._layout.page_bytes)
        if not wanted:
            return PointerResult(USED)
        with PageFlags(self._layout.memory) as flags:
            search = Search(self._programs, self._layout, flags, self._until, self._say)
            answers = [self._search(search, flags, wanted) for _ in range(_SEARCHES)]
            still = {entry.address: entry.time_ns for entry in self._tracer.outstanding()}
            machine = self._machine(flags)
            stacks = machine.areas.like(machine.tasks or {})
            said = {
                one.key: self._said(number, wanted, answers)
                for number, one in enumerate(wanted)
                if still.get(one.key) == one.time_ns and _is_there(one, machine, stacks)
            }
        notes: tuple[str, ...] = ()
        if search.unreadable_bytes:
            notes = (f"pointers: {search.unreadable_bytes} bytes of memory could not be read",)
        return PointerResult(USED, said, notes)

    def _say(self, scanned_bytes: int) -> None:
        self._progress.say(
            f"pointers: {scanned_bytes >> 20} MB searched (--no-pointers does without)"
        )

    # --- what is searched for -----------------------------------------------------------------

    def _old_entries(self) -> list[LedgerEntry]:
        """Those that are old enough: for the youngest, this waits."""
        began = time.monotonic_ns()
        entries = _bounded(list(self._tracer.oldest(OBJECTS_OF_A_STACK, began)))
        youngest = max((entry.time_ns for entry in entries), default=0)
        ready = min(began, youngest) / 1e9 + MIN_AGE_S
        while (left := ready - time.monotonic()) > 0:
            if time.monotonic() + left > self._until:
                raise GaveUpError("the youngest object was too young")
            self._progress.say(f"pointers: waiting until all are old enough ({left:.0f} s)")
            time.sleep(min(left, 0.1))
        return entries

    def _wanted(self, entry: LedgerEntry) -> WantedObject | None:
        layout = self._layout
        address, size = entry.address, entry.size_bytes
        if entry.family == PAGES:
            # Where the kernel hides where pages are mapped, the ledger has their struct pages.
            described = layout.described_by(address)
            if described is not None:
                address = layout.address_of(described[0])
            if entry.held_page is None or size % layout.page_bytes:
                return None
        elif entry.family == AREAS:
            return WantedObject(entry.address, AREAS, address, size, entry.time_ns)
        elif entry.family not in IN_SLABS:
            return None
        if layout.frame_at(address) is None:
            return None
        return WantedObject(entry.address, entry.family, address, size, entry.time_ns)

    # --- one search ---------------------------------------------------------------------------

    def _search(self, search: Search, flags: PageFlags, wanted: Sequence[WantedObject]) -> Answer:
        before = self._machine(flags)
        frames = {
            frame
            for one in wanted
            if one.family == PAGES and (first := self._layout.frame_at(one.address)) is not None
            for frame in range(first, first + one.size_bytes // self._layout.page_bytes)
        }
        aliases = before.areas.find_frames(before.tables, frames)
        objects = Objects(self._layout, wanted, aliases, self._slab_heads(wanted))
        hits = search.hits(objects)
        # Not earlier: what was made meanwhile is looked up among what there is now.
        return close(hits, Holders(self._machine(flags), self._btf, objects))

    def _slab_heads(self, wanted: Sequence[WantedObject]) -> dict[int, int]:
        """The first frames of slabs: pointers to struct pages may be to those of these."""
        compound_head = offset(self._btf, "page", "compound_head")
        heads = {}
        for one in wanted:
            frame = self._layout.frame_at(one.address)
            if one.family in IN_SLABS and frame is not None and frame not in heads:
                head = self._programs.word(self._layout.struct_page(frame) + compound_head)
                described = self._layout.described_by(head - 1) if head & 1 else None
                heads[frame] = frame if described is None else described[0]
        return heads

    def _machine(self, flags: PageFlags) -> Machine:
        programs, btf, layout = self._programs, self._btf, self._layout
        report = read_vmalloc_regions()
        if report.regions is None:
            raise GaveUpError(report.state)
        areas = Areas(report.regions)
        own = {
            region.address
            for address in self._own_maps()
            if (region := areas.at(address)) is not None
        }
        return Machine(
            programs,
            layout,
            flags,
            areas,
            PageTables(programs, btf, layout),
            Slabs(programs, btf, layout, self._per_cpu),
            FreePages(programs, btf, layout),
            Tasks(programs, btf).by_stack(),
            own,
            self._own_blocks,
            DataSymbols(loaded_modules().values()),
        )

    def _own_maps(self) -> Iterator[int]:
        """Where the maps of this process are: what they hold of addresses holds nothing."""
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                if os.readlink(entry) == "anon_inode:bpf-map":
                    yield private_data(self._programs, self._btf, int(entry.name))

    # --- both together ------------------------------------------------------------------------

    def _said(self, number: int, wanted: Sequence[WantedObject], answers: Sequence[Answer]) -> Said:
        one = wanted[number]
        for answer in answers:
            place = answer.held.get(number)
            if place is not None:
                inside = None if place.inside is None else wanted[place.inside].key
                return Said(one.time_ns, True, place.what, inside)
        doubtful = any(number in answer.doubtful for answer in answers)
        return Said(one.time_ns, None if doubtful else False)


def _small_enough(wanted: list[WantedObject], page_bytes: int) -> list[WantedObject]:
    """Without the largest, where all together have too many pages to search for."""
    wanted = sorted(wanted, key=lambda one: one.size_bytes)
    left = MOST_PAGES
    for number, one in enumerate(wanted):
        left -= -(-one.size_bytes // page_bytes) + 1
        if left < 0:
            return wanted[:number]
    return wanted


def _bounded(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    """The oldest of each stack, fewer of each where there are very many. Raises GaveUpError."""
    by_stack: dict[tuple[int, str], list[LedgerEntry]] = {}
    for entry in sorted(entries, key=lambda one: one.time_ns):
        by_stack.setdefault((entry.stack, entry.family), []).append(entry)
    share = OBJECTS_OF_A_STACK
    while sum(min(len(same), share) for same in by_stack.values()) > OBJECTS_IN_ALL:
        share //= 2
        if share < LEAST_OF_A_STACK:
            raise GaveUpError(f"what is outstanding is of {len(by_stack)} different stacks")
    return [entry for same in by_stack.values() for entry in same[:share]]


def _is_there(one: WantedObject, machine: Machine, stacks: Set[tuple[int, str | None]]) -> bool:
    """Whether the allocator has an object given out: else its free went unseen.

    Areas like those of ``stacks`` are none to be judged: a CPU keeps some for the next tasks.
    """
    if one.family == AREAS:
        region = machine.areas.at(one.address)
        if region is None or (region.size_bytes, region.caller) in stacks:
            return False
        return region.address == one.address
    frame = machine.layout.frame_at(one.address)
    if frame is None:
        return False
    if machine.flags.kind(frame) == SLAB:
        found = machine.slabs.object_at(one.address, frame)
        return found is not None and found.free is False and found.inside == 0
    largest = LARGEST_IN_SLAB_PAGES * machine.layout.page_bytes
    if one.family in IN_SLABS and one.size_bytes <= largest:
        return False  # the slab is gone, and others have its pages
    return machine.flags.owner(frame) is None and machine.free_pages.is_free(frame) is False
