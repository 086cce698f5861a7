"""What is captured (Session) and what is concluded from it (Report). Plain data, no behaviour.

Sizes are bytes, times are nanoseconds of CLOCK_MONOTONIC unless the name says otherwise.
Stacks are innermost frame first, as kernel people read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kleak.model.witnesses import WitnessState

# --- shared by both -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A source line, as the debug information names the file."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack, normalised: never an address, so it is equal across module loads.

    ``module`` is None for the kernel's own text. ``symbol`` is None where nothing is known;
    ``offset`` is then the offset in the module's text, or the address itself for module None.
    ``offset`` is that of the return address, as the kernel prints it; ``source`` is the line
    of the call. ``source`` takes no part in equality.
    """

    module: str | None
    symbol: str | None
    offset: int
    source: Source | None = field(default=None, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Hash once: stacks are keys from capture to ranking, and a look-up hashes all frames."""
        object.__setattr__(self, "_hash", hash((self.module, self.symbol, self.offset)))

    def __hash__(self) -> int:
        """Of all that equality asks."""
        return self._hash


@dataclass(frozen=True, slots=True)
class Tally:
    """A number of objects and the bytes they hold."""

    count: int = 0
    size_bytes: int = 0


PAGE_BYTES = 4096
"""The page size of most machines, taken where a capture or a snapshot does not say its own."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel that was observed. ``build_id`` is hexadecimal, None where it has none.

    ``page_bytes`` is the size of its pages: 4096, or 16384 or 65536 on some machines.
    """

    release: str
    machine: str
    build_id: str | None = None
    page_bytes: int = PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Target:
    """What was observed. ``kind`` is "module" or "symbols".

    ``name`` has commas between the names of several. What is said of one file is None then;
    a parameter is written as on the kernel's command line, ``module.name=value``.
    """

    kind: str
    name: str
    path: str | None = None
    parameters: tuple[str, ...] = ()
    version: str | None = None
    build_id: str | None = None


CYCLES_CUT_OFF = "cycles_cut_off"
"""Among what was lost: cycles that were planned and did not come to their end."""
FINAL_WAIT_CUT_SHORT = "final_wait_cut_short"
"""Among what was lost: frees that came late were not waited for to the end."""


@dataclass(frozen=True, slots=True)
class Trust:
    """All that the tracer knows it missed or could not ask.

    ``lost`` maps a reason to a number of events; only non-zero ones that may change a result
    belong there, and the two above. ``repaired`` are misses that were made good and change nothing.
    ``observed`` are the events that were seen, by what they were: the scale for the others;
    "frees_of_unseen_allocations", frees by the scope's own code of what it was not seen to
    allocate, the self-test of coverage; and "frees_while_reading", by as many objects less may be
    outstanding than the others say.
    ``means`` maps each event to how it was heard of, or to "absent: " and why it was not, and
    "kernel headers" to the tree used.
    ``witnesses`` maps each witness (kleak.model.witnesses) to what came of asking it.
    ``notes`` are sentences for the reader.
    """

    lost: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    observed: dict[str, int] = field(default_factory=dict)
    means: dict[str, str] = field(default_factory=dict)
    witnesses: dict[str, WitnessState] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing was lost that may change a result."""
        return not any(self.lost.values())

    @property
    def saw_every_event(self) -> bool:
        """Whether nothing was lost of the cycles that there are."""
        return not any(number for reason, number in self.lost.items() if reason != CYCLES_CUT_OFF)


# --- captured -----------------------------------------------------------------------------


class CycleTally(NamedTuple):
    """What one site did in one cycle. An object counts in the cycle that allocated it.

    No dataclass: see Allocation.
    """

    allocated: Tally
    freed: Tally

    @property
    def outstanding(self) -> Tally:
        """Allocated in this cycle and not freed when the session ended."""
        return Tally(
            self.allocated.count - self.freed.count,
            self.allocated.size_bytes - self.freed.size_bytes,
        )


HELD_BY_ITS_TASK = "the task that allocated it"
HELD_BY_ANOTHER = "another task since"


class Allocation(NamedTuple):
    """One outstanding allocation. ``holder`` is who has a page now, where the kernel tells.

    Where only page_owner tells, it is one of the two above.

    No dataclass: a session may keep a million, and a frozen one takes three times as long to make.
    """

    address: int
    size_bytes: int
    requested_bytes: int
    allocated_at_ns: int
    cycle: int
    pid: int
    comm: str
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class Reachability:
    """What kmemleak says of a site's outstanding objects, of all of them, by address.

    ``unreferenced``: it found no pointer to so many. ``same_stack``: nor to so many more that were
    allocated on the same stack, but are not in the ledger. ``asked``: so many of the others were
    looked up, of which it tracks ``known`` and found pointers to ``referenced``; to ``own`` more
    the data of a gone module leads, which the kernel kept.
    """

    unreferenced: int = 0
    same_stack: int = 0
    asked: int = 0
    known: int = 0
    referenced: int = 0
    own: int = 0

    def __add__(self, other: Reachability) -> Reachability:
        """What it says of both together."""
        return Reachability(
            self.unreferenced + other.unreferenced,
            self.same_stack + other.same_stack,
            self.asked + other.asked,
            self.known + other.known,
            self.referenced + other.referenced,
            self.own + other.own,
        )


@dataclass(frozen=True, slots=True)
class PointersTo:
    """What a search of the kernel's memory says of a site's outstanding objects.

    So many were ``searched`` for, of those that were old enough. To ``unreferenced`` nothing leads;
    to ``referenced`` something does, ``holders`` says what, with a number of objects, the commonest
    first. Of the others it cannot be told whether what leads to them is there still.
    """

    searched: int = 0
    unreferenced: int = 0
    referenced: int = 0
    holders: tuple[tuple[str, int], ...] = ()

    def __add__(self, other: PointersTo) -> PointersTo:
        """What it says of both together."""
        holders = dict(self.holders)
        for what, count in other.holders:
            holders[what] = holders.get(what, 0) + count
        return PointersTo(
            self.searched + other.searched,
            self.unreferenced + other.unreferenced,
            self.referenced + other.referenced,
            tuple(sorted(holders.items(), key=lambda row: (-row[1], row[0]))),
        )


@dataclass(frozen=True, slots=True)
class StackSample:
    """What is known of the stacks of a site whose objects were counted by call site.

    Of the outstanding objects, the stacks of ``walked`` are known; among these, ``different``
    differ, and the one that the site shows is that of ``shown``. Where that is 0 it is the stack of
    objects that were freed, or ``call_site`` alone.
    """

    call_site: Frame
    walked: int
    different: int
    shown: int


@dataclass(frozen=True, slots=True)
class TracedSite:
    """All allocations of one allocator with one normalised stack, or, where stacks were sampled,
    from one call site, with the stack that most of the objects have.

    ``allocator`` is "kmalloc", "kmem_cache", "reclaimable_cache" (a slab cache that the kernel may
    shrink), "pages", "percpu", "dma", "dma_pool", "vmalloc", "vmap", "ioremap" or "vm_map_ram".
    ``frames`` start at the function that emitted the event; the tracer's own are gone.
    ``cycles`` has one entry a cycle of the session, first cycle first.
    ``requested_bytes`` is what the outstanding objects were asked for, where the event tells.
    ``kept`` are some of the outstanding allocations, oldest first, bounded by the session.
    ``reachability`` is None where kmemleak was not asked. ``stacks`` is None where all were walked.
    ``pointers`` is None where memory was not searched, or for none of the site's objects.
    ``outstanding`` is what ``cycles`` add up to.
    """

    allocator: str
    frames: tuple[Frame, ...]
    cycles: tuple[CycleTally, ...]
    requested_bytes: int | None = None
    kept: Sequence[Allocation] = ()
    reachability: Reachability | None = None
    stacks: StackSample | None = None
    pointers: PointersTo | None = None
    outstanding: Tally = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Add up: ranking asks for it a dozen times."""
        count = size_bytes = 0
        for allocated, freed in self.cycles:
            count += allocated.count - freed.count
            size_bytes += allocated.size_bytes - freed.size_bytes
        object.__setattr__(self, "outstanding", Tally(count, size_bytes))


@dataclass(frozen=True, slots=True)
class Cycle:
    """One load, exercise, unload. ``index`` counts from 1. Times are CLOCK_MONOTONIC ns.

    ``module`` is what was loaded, where there were several; each load is a cycle then, and the
    cycles of different modules may overlap.
    """

    index: int
    loaded_at_ns: int
    unloaded_at_ns: int | None
    failure: str | None = None
    module: str | None = None


@dataclass(frozen=True, slots=True)
class VmallocRegion:
    """One region of /proc/vmallocinfo with a real start address, read after the last settle."""

    address: int
    size_bytes: int
    pages: int | None
    kind: str
    caller: str | None


@dataclass(frozen=True, slots=True)
class MemorySample:
    """What was outstanding at one moment of a capture.

    ``when`` is "start", "loaded", "unloaded" (or the command has ended), "settled" or, after the
    last wait for late frees, "end"; ``cycle`` is 0 at the start and at the end.
    ``meminfo_bytes`` are fields of /proc/meminfo.
    """

    time_ns: int
    when: str
    cycle: int
    outstanding: Tally
    meminfo_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the machine that was changed for a while. ``restored``: it is as before."""

    path: str
    before: str
    during: str
    restored: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness said, word for word: the text of a report of the kernel.

    A report that is compared is there twice: before the first cycle and after the last settle.
    "zoneinfo" is there for each sample that it belongs to, with the time of that sample.
    """

    witness: str
    taken_at_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When, where and how a session was captured, and what the kernel said meanwhile.

    Of it, ``samples`` and ``answers`` take part in verdicts.

    ``started_at`` is Unix time in seconds. ``read_at_ns`` is when the outstanding allocations
    were read; ages count back from it. ``scope`` are the modules or globs that counted.
    ``planned_cycles`` is how many were asked for. ``finished`` is False where the capture was
    killed: what is there was read after the last whole cycle. ``build_ids`` are those of the
    modules, by name.
    """

    kleak_version: str | None = None
    host: str | None = None
    started_at: float | None = None
    read_at_ns: int | None = None
    scope: tuple[str, ...] = ()
    planned_cycles: int | None = None
    finished: bool = True
    build_ids: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    samples: tuple[MemorySample, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """Everything that one capture saw. Analysis needs nothing else.

    ``vmalloc_regions`` is None where /proc/vmallocinfo could not be read with real addresses
    (trust.witnesses says why).
    """

    kernel: Kernel
    target: Target
    cycles: tuple[Cycle, ...]
    sites: tuple[TracedSite, ...]
    trust: Trust
    vmalloc_regions: tuple[VmallocRegion, ...] | None = None
    circumstances: Circumstances = field(default_factory=Circumstances)
