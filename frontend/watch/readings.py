"""What `kleak watch` shows: readings of the ledger, and how each differs from the one before.

Plain data and functions over it, like :mod:`kleak.model`. Sizes are bytes, times nanoseconds of
CLOCK_MONOTONIC unless the name says otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from functools import cached_property
from typing import NamedTuple

from kleak.errors import UsageError
from kleak.frames.stacks import split_allocator
from kleak.model.session import Frame, Tally

_RATE_WINDOW_S = 60.0
_NS = 1e9


# --- read -----------------------------------------------------------------------------------


class Since(Enum):
    """From when on allocations count: the start of the watch, or its last mark."""

    START = "start"
    MARK = "mark"


@dataclass(eq=False)
class LiveSite:
    """All allocations of one allocator with one normalised stack, innermost frame first; with
    ``by_call_site``, from one call site, which the frames are until a stack is known.

    It is the same object in every reading, so it is compared by identity, and what is sorted by
    is worked out once.
    """

    allocator: str
    frames: tuple[Frame, ...]
    by_call_site: bool = False

    def __post_init__(self) -> None:
        """Keep what tells this site from others, whatever stack it shows: ``origin``."""
        self.origin = self.frames

    def show(self, frames: tuple[Frame, ...]) -> None:
        """Show another stack of those that lead to the call site."""
        if frames != self.frames:
            self.frames = frames
            for name in ("callers", "function", "module"):
                self.__dict__.pop(name, None)

    @cached_property
    def callers(self) -> tuple[Frame, ...]:
        """The frames without the allocator's own."""
        return split_allocator(self.frames)[1] or self.frames

    @cached_property
    def function(self) -> str:
        """The first function that is no allocator's."""
        return name_of(self.callers[0]) if self.callers else "?"

    @cached_property
    def module(self) -> str | None:
        """The innermost module on the stack; None where all of it is the kernel's own."""
        return next((frame.module for frame in self.frames if frame.module is not None), None)


class Held(NamedTuple):
    """What is outstanding of a site. ``oldest_ns`` is when the oldest was allocated, None if it
    is younger than the last reading of ages.
    """

    objects: int
    size_bytes: int
    oldest_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The ledger at one moment.

    ``held`` has what is outstanding by what it is counted from; of sites without anything
    outstanding there is nothing. ``began_at_ns``: when each of them was. ``ages_at_ns`` is when
    the ages were read. ``lost`` is what the tracer missed, ``evicted_stacks`` how many stacks
    were dropped because nothing was outstanding of them.
    """

    taken_at_ns: int
    held: Mapping[Since, Mapping[LiveSite, Held]]
    began_at_ns: Mapping[Since, int]
    marks: int
    ages_at_ns: int
    lost: Mapping[str, int]
    evicted_stacks: int = 0


# --- compared -------------------------------------------------------------------------------


class Row(NamedTuple):
    """A site in one refresh. ``change`` is from the refresh before; ``rate`` bytes a second,
    averaged over the last minute. ``age_s`` is the oldest object's age in seconds, and with
    ``age_is_bound`` the greatest it may be; None if nothing is outstanding any more.
    """

    site: LiveSite
    objects: int
    size_bytes: int
    change: Tally
    rate: float
    age_s: float | None
    age_is_bound: bool


@dataclass(frozen=True, slots=True)
class Refresh:
    """One reading compared with the one before. ``rows`` are in no order.

    ``change`` is of all sites together; ``elapsed_s`` since the reading before, None for the
    first; ``watched_s`` since what is counted from; ``ages_s`` since the ages were read.
    """

    since: Since
    rows: tuple[Row, ...]
    total: Tally
    change: Tally
    elapsed_s: float | None
    watched_s: float
    ages_s: float
    marks: int
    lost: Mapping[str, int]
    evicted_stacks: int


class Comparison:
    """Compares each reading with the one before. Keeps no more than one reading has sites."""

    def __init__(self, since: Since) -> None:
        """``since``: what to count from."""
        self.since = since
        self._before: dict[LiveSite, tuple[Held, float]] = {}
        self._taken_at_ns: int | None = None
        self._weight = 0.0  # of all changes so far in a moving average

    def update(self, reading: Reading) -> Refresh:
        """Return what is new. A site that was freed altogether is shown once more, empty."""
        taken = reading.taken_at_ns
        elapsed = None if self._taken_at_ns is None else (taken - self._taken_at_ns) / _NS
        averaging = self._averaging(elapsed)
        held = reading.held[self.since]
        gone = dict.fromkeys(self._before.keys() - held.keys(), Held(0, 0))
        rows = [self._row(site, now, reading, averaging) for site, now in {**held, **gone}.items()]
        self._before = {row.site: (held[row.site], row.rate) for row in rows if row.site in held}
        self._taken_at_ns = taken
        return Refresh(
            self.since,
            tuple(rows),
            _sum(Tally(row.objects, row.size_bytes) for row in rows),
            _sum(row.change for row in rows),
            elapsed,
            (taken - reading.began_at_ns[self.since]) / _NS,
            (taken - reading.ages_at_ns) / _NS,
            reading.marks,
            reading.lost,
            reading.evicted_stacks,
        )

    def _averaging(self, elapsed: float | None) -> tuple[float, float] | None:
        """What to multiply the rate of before by, and the last change; None for the first reading.

        A moving average, divided by the weight of all that is in it yet: so the first minute is
        no ramp.
        """
        if not elapsed:
            return None
        share = 1 - math.exp(-elapsed / _RATE_WINDOW_S)
        before, self._weight = self._weight, self._weight + (1 - self._weight) * share
        return before * (1 - share) / self._weight, share / elapsed / self._weight

    def _row(
        self, site: LiveSite, now: Held, reading: Reading, averaging: tuple[float, float] | None
    ) -> Row:
        before, rate = self._before.get(site, (Held(0, 0), 0.0))
        change = Tally()
        if averaging is not None:
            change = Tally(now.objects - before.objects, now.size_bytes - before.size_bytes)
            rate = rate * averaging[0] + change.size_bytes * averaging[1]
        age: float | None = None
        if now.objects > 0:
            began = reading.began_at_ns[self.since]
            oldest = max(began, reading.ages_at_ns) if now.oldest_ns is None else now.oldest_ns
            age = max(0.0, (reading.taken_at_ns - oldest) / _NS)
        return Row(site, now.objects, now.size_bytes, change, rate, age, now.oldest_ns is None)


def _sum(tallies: Iterable[Tally]) -> Tally:
    count = size_bytes = 0
    for tally in tallies:
        count += tally.count
        size_bytes += tally.size_bytes
    return Tally(count, size_bytes)


# --- chosen ---------------------------------------------------------------------------------

_NUMBERS: dict[str, Callable[[Row], float]] = {
    "bytes": lambda row: row.size_bytes,
    "count": lambda row: row.objects,
    "change": lambda row: row.change.size_bytes,
    "rate": lambda row: row.rate,
    "age": lambda row: row.age_s or 0.0,
}
_WORDS: dict[str, Callable[[Row], str]] = {
    "function": lambda row: row.site.function,
    "module": lambda row: row.site.module or "",
    "allocator": lambda row: row.site.allocator,
}
ORDERS = (*_NUMBERS, *_WORDS)
"""What rows can be sorted and filtered by."""

_TERM = re.compile(r"(\w+)(>=|<=|>|<|=)(.+)")
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)([kMG]?)B?")
_SCALE = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    "=": lambda value, bound: value == bound,
}

Condition = Callable[[Row], bool]


def sort(rows: Iterable[Row], order: str, *, inverted: bool = False) -> list[Row]:
    """Rows by one of ORDERS: numbers greatest first, words from A; ``inverted`` turns it round.

    Rows that are equal in it: most bytes first, then by function.
    """
    ordered = sorted(rows, key=lambda row: (-row.size_bytes, -row.objects, row.site.function))
    if order in _NUMBERS:
        return sorted(ordered, key=_NUMBERS[order], reverse=not inverted)
    return sorted(ordered, key=_WORDS[order], reverse=inverted)


def parse_filter(text: str) -> Condition:
    """The condition that a filter's text stands for; an empty text is true of every row.

    Terms between blanks, all of which must hold: ``bytes>1M``, ``count>=17``, ``change>0``,
    ``age>60`` (seconds), ``function=do_*``, ``module=ext4``, ``allocator=vmalloc``; a word alone
    must occur in the name of a function on the stack. Raises UsageError with the term that is
    none.
    """
    conditions = [_condition(term) for term in text.split()]
    return lambda row: all(condition(row) for condition in conditions)


def _condition(term: str) -> Condition:
    parts = _TERM.fullmatch(term)
    if parts is None:
        if re.search("[<>=]", term):
            raise UsageError(f"filter: {term} is no term like bytes>1M or function=do_*")
        return lambda row: any(term in (frame.symbol or "") for frame in row.site.frames)
    key, operator, value = parts.groups()
    if key in _WORDS:
        if operator != "=":
            raise UsageError(f"filter: {key} is text, which is compared by =")
        word = _WORDS[key]
        return lambda row: fnmatchcase(word(row), value)
    if key not in _NUMBERS:
        raise UsageError(f"filter: no key {key}; there are {', '.join(ORDERS)}")
    number = _NUMBER.fullmatch(value)
    if number is None:
        raise UsageError(f"filter: {value} is no number like 17 or 1.5M")
    bound = float(number[1]) * _SCALE[number[2]]
    of, compare = _NUMBERS[key], _COMPARE[operator]
    return lambda row: compare(of(row), bound)


def name_of(frame: Frame) -> str:
    """The name of a frame's function; its place where it has none."""
    if frame.symbol is not None:
        return frame.symbol
    return f".text+{frame.offset:#x}" if frame.module is not None else f"{frame.offset:#x}"
