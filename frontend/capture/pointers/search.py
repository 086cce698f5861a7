"""One search of the kernel's memory for pointers to objects.

Memory is searched blindly; what a hit means is looked up afterwards, for hits are few. Then what is
held from outside is followed through the objects themselves.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from kleak.capture.pointers.holders import Holders, Place, Weight
from kleak.capture.pointers.layout import Frames, MemoryLayout
from kleak.capture.pointers.objects import Objects
from kleak.capture.pointers.page_flags import PageFlags
from kleak.capture.pointers.programs import BLOCK_BYTES, GROUP_BYTES, ScanPrograms

_ROUNDS_OF_CHANGES = 3
"""So many times what became the kernel's memory during a scan is searched after it."""
_FEW_FRAMES = 1000
_FRAMES_AT_ONCE = 8192
_MOST_HITS = 1_000_000
_WORD_BYTES = 8
_GROUP_WORDS = GROUP_BYTES // _WORD_BYTES


class GaveUpError(Exception):
    """The search may not, or cannot, come to its end: says why."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A word, where it is, and the number of the object that it leads to."""

    source: int
    value: int
    target: int


@dataclass(slots=True)
class Answer:
    """What one search said. ``held``: what holds an object, by its number; ``doubtful``: objects
    to which only what may be left over leads. To all others nothing does.
    """

    held: dict[int, Place] = field(default_factory=dict)
    doubtful: dict[int, Place] = field(default_factory=dict)


class Search:
    """Searches, and counts what that took."""

    def __init__(
        self,
        programs: ScanPrograms,
        layout: MemoryLayout,
        flags: PageFlags,
        until: float,
        progress: Callable[[int], None],
    ) -> None:
        """``until``: by time.monotonic(). ``progress`` is told how many bytes were searched."""
        self._programs, self._layout, self._flags = programs, layout, flags
        self._until, self._progress = until, progress
        self.scanned_bytes = 0
        self.unreadable_bytes = 0

    def hits(self, objects: Objects) -> list[Hit]:
        """Search all memory of the kernel. Raises GaveUpError when its time is over."""
        self._programs.want(objects.filter_numbers())
        found: list[Hit] = []
        for run in self._runs():
            groups = self._programs.scan(
                self._layout.address_of(run.first),
                (run.end - run.first) * self._layout.page_bytes // BLOCK_BYTES,
            )
            for group, places in groups:
                found += self._hits_of(objects, group, places)
            self.scanned_bytes += (run.end - run.first) * self._layout.page_bytes
            self._progress(self.scanned_bytes)
            if time.monotonic() > self._until:
                raise GaveUpError("its time was over (--pointer-seconds)")
            if len(found) > _MOST_HITS:
                raise GaveUpError(f"more than {_MOST_HITS} pointers lead to what is outstanding")
        self.unreadable_bytes += self._programs.unreadable_blocks * BLOCK_BYTES
        return found

    def _runs(self) -> Iterator[Frames]:
        for run in self._flags.read_all():
            for first in range(run.first, run.end, _FRAMES_AT_ONCE):
                part = Frames(first, min(run.end, first + _FRAMES_AT_ONCE))
                yield from self._initialised(part)
        for _ in range(_ROUNDS_OF_CHANGES):
            late = list(self._flags.read_again())
            yield from late
            if len(late) < _FEW_FRAMES:
                break

    def _initialised(self, part: Frames) -> Iterator[Frames]:
        """Leave out what has no struct pages yet (CONFIG_DEFERRED_STRUCT_PAGE_INIT): it has no
        flags that would say so, and nobody was given it.
        """
        size = self._layout.struct_page_bytes
        step = BLOCK_BYTES // size
        if part.end - part.first < step:
            yield part
            return
        begun: int | None = None
        for first in range(part.first, part.end, step):
            count = min(step, part.end - first)
            data = self._programs.read(self._layout.struct_page(first), count * size)
            if data is not None and data == bytes(len(data)):
                if begun is not None:
                    yield Frames(begun, first)
                begun = None
            elif begun is None:
                begun = first
        if begun is not None:
            yield Frames(begun, part.end)

    def _hits_of(self, objects: Objects, group: int, places: int) -> Iterator[Hit]:
        """The program only says which words of a group may be hits: read them, and look again."""
        words = self._programs.words(group, _GROUP_WORDS)
        if words is None:
            return
        for place in range(_GROUP_WORDS):
            if not places >> place & 1:
                continue
            source, word = group + place * _WORD_BYTES, words[place]
            # The offset of a scatterlist is in the word behind.
            after = words[place + 1] if place + 1 < _GROUP_WORDS else 0
            if not after and objects.is_struct_page(word):
                after = self._programs.word(source + _WORD_BYTES)
            for target in objects.pointed_to(word, after):
                yield Hit(source, word, target)


def close(hits: Sequence[Hit], holders: Holders) -> Answer:
    """Look up what the hits are, and follow what is held from outside through the objects."""
    sources = dict(holders.places({hit.source for hit in hits}))
    roots: dict[Weight, dict[int, Place]] = {weight: {} for weight in Weight}
    edges: dict[Weight, dict[int, dict[int, Place]]] = {
        weight: defaultdict(dict) for weight in Weight
    }
    for hit in hits:
        place = holders.place(hit.source, sources[hit.source], hit.value, hit.target)
        if place.inside is None:
            roots[place.weight].setdefault(hit.target, place)
        elif place.inside != hit.target:
            edges[place.weight][place.inside].setdefault(hit.target, place)
    held = _reached(roots[Weight.HOLDS], edges[Weight.HOLDS])
    either = {
        number: edges[Weight.HOLDS].get(number, {}) | edges[Weight.DOUBTFUL].get(number, {})
        for number in (*edges[Weight.HOLDS], *edges[Weight.DOUBTFUL])
    }
    perhaps = _reached(held | roots[Weight.DOUBTFUL], either)
    return Answer(held, {one: place for one, place in perhaps.items() if one not in held})


def _reached(roots: dict[int, Place], edges: dict[int, dict[int, Place]]) -> dict[int, Place]:
    reached = dict(roots)
    left = list(roots)
    while left:
        for target, place in edges.get(left.pop(), {}).items():
            if target not in reached:
                reached[target] = place
                left.append(target)
    return reached
