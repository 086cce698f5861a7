"""What the tracer is told, and what it tells: plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kleak.capture.engine.declared import COPIED_ALLOCATIONS
from kleak.symbols.kernel_table import TextRange

_LEAST_BITMAP_WORDS = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the maps, in entries. All are preallocated: about 180 bytes for an outstanding
    allocation, 1.1 kB for a stack, 130 bytes for the totals of a stack in a cycle.
    """

    outstanding: int = 65536
    stacks: int = 16384
    totals: int = 32768

    @property
    def filter_slots(self) -> int:
        """Counters of the filter in front of the ledger: a power of two, four times the ledger's
        entries or more, so that with a full ledger most are 0. filter_slot() of bpf/ledger.h has
        no more than 24 bits for them.
        """
        return 1 << min(max((4 * self.outstanding - 1).bit_length(), 12), 24)


@dataclass(frozen=True, slots=True)
class SymbolScope:
    """Ranges of kernel text in scope. With ``everything`` there is one, and no more is asked."""

    ranges: tuple[TextRange, ...]
    everything: bool = False

    @property
    def envelope(self) -> TextRange:
        """The range from the lowest address in scope to the highest."""
        return TextRange(min(r.start for r in self.ranges), max(r.end for r in self.ranges))

    @property
    def bitmap_words(self) -> int:
        """Words of 64 bits for a bit each byte of the envelope, of few sizes: the programs are
        compiled for one, and serve other scopes.
        """
        envelope = self.envelope
        words = (envelope.end - envelope.start) // 64 + 1
        return max(_LEAST_BITMAP_WORDS, 1 << (words - 1).bit_length())


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """One load of a module in scope, as the kernel placed it. Times are CLOCK_MONOTONIC ns."""

    name: str
    cycle: int
    text: TextRange
    init_text: TextRange
    loaded_at_ns: int
    unloaded_at_ns: int | None


@dataclass(frozen=True, slots=True)
class StackTotal:
    """What one stack of one family did in one cycle, by the cycle that allocated."""

    stack: int
    cycle: int
    family: str
    allocated: int
    allocated_bytes: int
    allocated_requested: int
    freed: int
    freed_bytes: int
    freed_requested: int

    @property
    def outstanding(self) -> int:
        """Objects allocated and not freed."""
        return self.allocated - self.freed


class LedgerEntry(NamedTuple):
    """One outstanding allocation. No dataclass: there may be a million.

    ``held_page``: in a block of pages some of which were freed singly, the first that was not; None
    where nobody noted which.
    """

    address: int
    stack: int
    size_bytes: int
    requested_bytes: int
    time_ns: int
    cycle: int
    family: str
    tgid: int
    comm: str
    held_page: int | None = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """What the programs counted, and how often the kernel could not run them.

    ``missed_runs`` is by event, then one figure a copy of its program. ``made_good`` is by event
    the runs of the first copy that were skipped, but not those of the second.
    """

    counted: Mapping[str, int]
    missed_runs: Mapping[str, tuple[int, ...]]
    made_good: Mapping[str, int]

    @property
    def gone(self) -> int:
        """Allocations that are known not to be outstanding any more, however that was learnt."""
        return sum(self.counted[name] for name in ("freed", "double_events", "reused_addresses"))

    def since(self, before: Counters) -> Counters:
        """Return what was counted after ``before``."""
        return Counters(
            {name: count - before.counted.get(name, 0) for name, count in self.counted.items()},
            {
                event: tuple(
                    now - then
                    for now, then in zip(
                        missed, before.missed_runs.get(event, (0,) * len(missed)), strict=True
                    )
                )
                for event, missed in self.missed_runs.items()
            },
            {
                event: good - before.made_good.get(event, 0)
                for event, good in self.made_good.items()
            },
        )

    def lost_events(self) -> dict[str, int]:
        """Events that no copy of their program saw, by event; events without any are left out.

        Where the copies cannot tell, as many as the copy with the fewest was skipped: a bound.
        """
        lost = {}
        for event, missed in self.missed_runs.items():
            unseen = min(missed)
            if event in self.made_good:
                not_good = missed[0] - self.made_good[event]
                # The second copy of an allocation's program does nothing where it finds a mark of
                # the first, which may be an old one: so more can be lost than it was skipped. That
                # of a free acts in any case.
                acts = event not in COPIED_ALLOCATIONS
                unseen = min(unseen, not_good) if acts else not_good
            if unseen > 0:
                lost[event] = unseen
        return lost
