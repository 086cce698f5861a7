"""From a row of the maps to its site: stack, call site, frames, allocator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Generic, Protocol, TypeVar

from kleak.capture.engine.sampling import is_call_site
from kleak.frames.stacks import Frames, strip_tracer, vmap_kind
from kleak.model.session import Frame

Row = tuple[int, int, str]
"""Key of a stack, cycle, and family."""


class Stacks(Protocol):
    """The stacks of a tracer, by the keys that are booked under."""

    def stack(self, key: int) -> Sequence[int]:
        """Return addresses, innermost first; of a call site alone that."""

    def call_site(self, key: int) -> int:
        """Return the call site of a stack; 0 where stacks are not sampled, or it has none."""


class KnownStacks:
    """The stacks of a tracer, read at once."""

    def __init__(
        self, stacks: Mapping[int, Sequence[int]], call_sites: Mapping[int, int] | None
    ) -> None:
        """Addresses by key. ``call_sites``: those of walked stacks; None if none are sampled."""
        self._stacks = stacks
        self._call_sites = call_sites

    def stack(self, key: int) -> Sequence[int]:
        """See Stacks."""
        return self._stacks[key]

    def call_site(self, key: int) -> int:
        """See Stacks."""
        if self._call_sites is None:
            return 0
        return key if is_call_site(key) else self._call_sites.get(key, 0)


class Names(Protocol):
    """What addresses are called; :class:`kleak.symbols.symboliser.Symboliser` is one."""

    def resolve(self, address: int, epoch: int) -> Frame:
        """Return the frame of a return address, as it was in a cycle."""

    def era(self, epoch: int) -> int:
        """Return one number for cycles in which every address has the same frame."""


S = TypeVar("S")


class SiteIndex(Generic[S]):
    """The sites so far: stacks with equal frames are one, and where stacks are sampled, all that
    has one call site.

    Looking at frames is what costs: the same ones, seen in another cycle, are not looked at again.
    """

    def __init__(
        self,
        stacks: Stacks,
        names: Names,
        make: Callable[[str, Frames, Frame | None], S],
    ) -> None:
        """``make`` makes a site of its allocator and frames, and of its call site if it is one:
        then the frames are that alone.
        """
        self._stacks = stacks
        self._names = names
        self._make = make
        self._by_row: dict[Row, S] = {}  # by era, not cycle
        self._call_sites: dict[int, int] = {}
        self._walked: dict[tuple[int, int], Frames | None] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._frames: dict[Frame, int] = {}
        self._by_numbers: dict[tuple[str, tuple[int, ...]], S] = {}
        self._by_frames: dict[tuple[str, Frames], S] = {}
        self._by_call_site: dict[tuple[str, Frame], S] = {}

    def __iter__(self) -> Iterator[S]:
        """Return each site once."""
        return chain(self._by_frames.values(), self._by_call_site.values())

    def __len__(self) -> int:
        """Return how many rows are known."""
        return len(self._by_row)

    def find(self, stack: int, cycle: int, family: str) -> S | None:
        """Return the site of a row, if the row was added."""
        return self._by_row.get((stack, self._names.era(cycle), family))

    def add(self, stack: int, cycle: int, family: str) -> S:
        """Return the site of a row, a new one if need be."""
        era = self._names.era(cycle)
        site = self._by_row.get((stack, era, family))
        if site is None:
            call_site = self.call_site(stack)
            site = self._by_row[stack, era, family] = (
                self._of_call_site(self._names.resolve(call_site, era), family)
                if call_site
                else self._of_stack(stack, era, family)
            )
        return site

    def call_site(self, stack: int) -> int:
        """Return the call site of a stack; 0 where stacks are not sampled, or it has none."""
        found = self._call_sites.get(stack)
        if found is None:
            found = self._call_sites[stack] = self._stacks.call_site(stack)
        return found

    def walked(self, stack: int, cycle: int) -> Frames | None:
        """Return the stack that was walked for a call site, None for what is no such stack."""
        place = (stack, self._names.era(cycle))
        if place not in self._walked:
            alone = self.call_site(stack) in (0, stack)
            self._walked[place] = None if alone else self._read(*place)
        return self._walked[place]

    def forget_all_but(self, rows: Collection[Row]) -> None:
        """Forget other rows, and the sites that have no row left."""
        self._by_row = {row: self._by_row[row] for row in rows if row in self._by_row}
        kept = {id(site) for site in self._by_row.values()}
        self._by_frames = {key: one for key, one in self._by_frames.items() if id(one) in kept}
        self._by_call_site = {
            key: one for key, one in self._by_call_site.items() if id(one) in kept
        }
        stacks = {(stack, era) for stack, era, _ in self._by_row}
        known = {stack for stack, _ in stacks}
        self._call_sites = {key: one for key, one in self._call_sites.items() if key in known}
        self._walked = {place: one for place, one in self._walked.items() if place in stacks}
        self._numbers, self._frames, self._by_numbers = {}, {}, {}

    def _of_call_site(self, call_site: Frame, family: str) -> S:
        key = (family, call_site)
        if key not in self._by_call_site:
            self._by_call_site[key] = self._make(family, (call_site,), call_site)
        return self._by_call_site[key]

    def _of_stack(self, stack: int, era: int, family: str) -> S:
        known, addresses = self._numbers, self._stacks.stack(stack)
        numbers = tuple([known.get((a, era)) or self._number(a, era) for a in addresses])
        site = self._by_numbers.get((family, numbers))
        if site is None:
            frames = self._read(stack, era)
            key = (allocator_of(family, frames), frames)
            if key not in self._by_frames:
                self._by_frames[key] = self._make(*key, None)
            site = self._by_numbers[family, numbers] = self._by_frames[key]
        return site

    def _read(self, stack: int, era: int) -> Frames:
        resolve = self._names.resolve
        return strip_tracer([resolve(address, era) for address in self._stacks.stack(stack)])

    def _number(self, address: int, era: int) -> int:
        """A number, above 0, for each different frame."""
        frame = self._names.resolve(address, era)
        number = self._frames.setdefault(frame, len(self._frames) + 1)
        self._numbers[address, era] = number
        return number


def allocator_of(family: str, frames: tuple[Frame, ...]) -> str:
    """Return the name that reports have for a family; areas of vmalloc have one by their stack."""
    if family != "vmap_area":
        return family
    return vmap_kind(frames) or "vmap"
