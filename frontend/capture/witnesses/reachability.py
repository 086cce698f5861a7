"""What kmemleak says, joined to the ledger: by exact address, else by the stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from kleak.capture.engine.records import LedgerEntry
from kleak.capture.witnesses.kmemleak import KmemleakResult
from kleak.frames.stacks import Frames, split_allocator
from kleak.model.session import Frame, Reachability
from kleak.parsers.kmemleak import UnreferencedObject

Resolve = Callable[[int, int], Frame]
"""An address and the cycle in which it was seen, to a frame."""


class Joined:
    """Counts for each site what kmemleak says of its objects. Made for one read of the ledger."""

    def __init__(self, result: KmemleakResult) -> None:
        """Join with ``result``."""
        self._result = result
        self._left = dict(result.unreferenced)

    def count(self, entry: LedgerEntry, said: Counter[str]) -> None:
        """Add to the counts of a site what is said of one of its objects."""
        if entry.address in self._result.unreferenced:
            said["unreferenced"] += 1
            self._left.pop(entry.address, None)
        elif entry.address in self._result.asked:
            state = self._result.asked[entry.address]
            said["asked"] += 1
            said["known"] += state is not None
            if state is not None and state.referenced:
                said["own" if entry.address in self._result.own else "referenced"] += 1

    def stacks_left(self, resolve: Resolve, cycles: int) -> list[Frames]:
        """The stacks of reported objects that are not in the ledger, without allocator frames."""
        return [_stack(found, resolve, cycles) for found in self._left.values()]


def reachability(
    said: Mapping[str, int], frames: Sequence[Frame], stacks_left: Iterable[Frames]
) -> Reachability:
    """What is said of a site, by its counts and by its stack. kmemleak keeps 16 frames at most."""
    _, rest = split_allocator(frames)
    same = sum(bool(stack) and stack == rest[: len(stack)] for stack in stacks_left)
    return Reachability(**said, same_stack=same)


def _stack(found: UnreferencedObject, resolve: Resolve, cycles: int) -> Frames:
    frames = []
    for place in found.frames:
        if place.symbol is not None and place.offset is not None:
            frames.append(Frame(place.module, place.symbol, place.offset))
        elif place.address is not None:
            frames.append(_gone(place.address, resolve, cycles))
    return split_allocator(frames)[1]


def _gone(address: int, resolve: Resolve, cycles: int) -> Frame:
    """The frame of an address that the kernel has no name for: of a load of the target."""
    for cycle in range(cycles, 0, -1):
        frame = resolve(address, cycle)
        if frame.module is not None:
            return frame
    return Frame(None, None, address)
