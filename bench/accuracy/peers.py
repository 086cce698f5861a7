"""What memleak-bpfcc and kmemleak say of the corpus, against the truth. Pure.

Both print bare addresses of code that is no longer loaded (memleak: names of what else is near).
They are read with the places where the module was, so that only what they saw is scored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kleak.parsers import kmemleak
from tests.support.corpus import Case

_STACK = re.compile(r"^\t(\d+) bytes in (\d+) allocations from stack$")
_FRAME = re.compile(r"^\t\t0x([0-9a-f]+)\t")

Resolve = Callable[[int], frozenset[str]]
"""An address to the functions of the corpus that it may be in."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Objects that a peer reports of one stack, by return addresses."""

    count: int
    addresses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PeerScore:
    """How good a peer's list is. ``functions`` leak in the corpus; ``found`` of them are in some
    stack, and ``exact`` in stacks with as many objects as they leaked. ``right`` of the
    ``reported`` stacks have one; ``accused`` have innocent functions of the corpus only.
    """

    peer: str
    functions: int
    found: int
    exact: int
    reported: int
    right: int
    accused: int
    missing: tuple[str, ...]


def memleak_stacks(text: str) -> list[Stack]:
    """Read what memleak-bpfcc printed."""
    stacks: list[Stack] = []
    count, addresses = 0, list[int]()
    for line in [*text.splitlines(), "\t0 bytes in 0 allocations from stack"]:
        if match := _STACK.match(line):
            if count:
                stacks.append(Stack(count, tuple(addresses)))
            count, addresses = int(match[2]), []
        elif match := _FRAME.match(line):
            addresses.append(int(match[1], 16))
    return stacks


def kmemleak_stacks(text: str) -> list[Stack]:
    """Read /sys/kernel/debug/kmemleak; an object is a stack of its own.

    Frames of a module that is gone are bare addresses; of the others, newer kernels print none.
    """
    report = kmemleak.parse(text.splitlines(keepends=True), errors="collect")
    return [
        Stack(1, tuple(frame.address for frame in one.frames if frame.address is not None))
        for one in report.objects
    ]


def truth(cases: Iterable[Case]) -> dict[str, int]:
    """Objects that each function leaks, in all cycles of all cases."""
    leaked: dict[str, int] = {}
    for case in cases:
        if case.leak is not None:
            before = leaked.get(case.leak.function, 0)
            leaked[case.leak.function] = before + sum(case.leak.counts(case.cycles))
    return leaked


def score(
    peer: str, stacks: Sequence[Stack], resolve: Resolve, leaked: Mapping[str, int]
) -> PeerScore:
    """Compare the stacks of a peer with what leaked."""
    counted = dict.fromkeys(leaked, 0)
    right = accused = 0
    for stack in stacks:
        functions = frozenset[str]().union(*(resolve(address) for address in stack.addresses))
        guilty = functions & leaked.keys()
        for function in guilty:
            counted[function] += stack.count
        right += bool(guilty)
        accused += bool(functions) and not guilty
    return PeerScore(
        peer,
        functions=len(leaked),
        found=sum(count > 0 for count in counted.values()),
        exact=sum(counted[function] == count for function, count in leaked.items()),
        reported=len(stacks),
        right=right,
        accused=accused,
        missing=tuple(sorted(function for function, count in counted.items() if not count)),
    )
