"""What kmemleak says, joined to sites: by address, by stack, and not at all."""

from __future__ import annotations

from collections import Counter

import pytest

from kleak.capture.engine.records import LedgerEntry
from kleak.capture.witnesses.kmemleak import KmemleakResult
from kleak.capture.witnesses.reachability import Joined, reachability
from kleak.model.session import Frame, Reachability
from kleak.model.witnesses import USED
from kleak.parsers.code_location import CodeLocation
from kleak.parsers.kmemleak import ObjectState, UnreferencedObject
from tests.support.samples import LEAK

TEXT = 0xFFFFFFFFC0A90000
ALLOCATOR = CodeLocation("__kmalloc_cache_noprof", 0x11E, 0x1A0, None)


def entry(address: int) -> LedgerEntry:
    return LedgerEntry(address, 1, 128, 120, 1000, 1, "kmalloc", 331, "insmod")


def reported(address: int, *frames: CodeLocation) -> UnreferencedObject:
    return UnreferencedObject(
        address, 128, "object", "insmod", 331, 4294900000, None, b"", None, None, frames, None
    )


def resolve(address: int, cycle: int) -> Frame:
    """The module lay at TEXT in cycle 1 only."""
    if cycle == 1 and TEXT <= address < TEXT + 0x1000:
        return {
            TEXT + 0x1C: Frame("leaky", "leak_it", 0x1C),
            TEXT + 0x140: Frame("leaky", "leaky_init", 0x40),
        }[address]
    return Frame(None, None, address)


def bare(address: int) -> CodeLocation:
    return CodeLocation(None, None, None, None, address)


def test_by_address() -> None:
    joined = Joined(
        KmemleakResult(
            USED,
            {0x1000: reported(0x1000), 0x2000: reported(0x2000)},
            {
                0x3000: ObjectState(1, 1),
                0x4000: ObjectState(0, 1),
                0x5000: None,
                0x7000: ObjectState(1, 1),
            },
            frozenset({0x7000}),
        )
    )
    said: Counter[str] = Counter()
    for address in range(0x1000, 0x8000, 0x1000):
        joined.count(entry(address), said)
    assert reachability(said, LEAK, joined.stacks_left(resolve, 1)) == Reachability(
        unreferenced=2, asked=4, known=3, referenced=1, own=1
    )


def test_by_stack_where_the_module_is_gone() -> None:
    gone = reported(0x1000, ALLOCATOR, bare(TEXT + 0x1C), bare(TEXT + 0x140))
    joined = Joined(KmemleakResult(USED, {0x1000: gone}))
    left = joined.stacks_left(resolve, 3)
    assert reachability(Counter(), LEAK, left) == Reachability(same_stack=1)
    other = (*LEAK[:1], Frame("leaky", "other", 0x1C), *LEAK[2:])
    assert reachability(Counter(), other, left) == Reachability()


@pytest.mark.parametrize("frames", [(), (ALLOCATOR,)])
def test_no_stack_is_nobodys(frames: tuple[CodeLocation, ...]) -> None:
    joined = Joined(KmemleakResult(USED, {0x1000: reported(0x1000, *frames)}))
    assert reachability(Counter(), LEAK, joined.stacks_left(resolve, 1)) == Reachability()


def test_joined_by_address_is_not_joined_by_stack_as_well() -> None:
    gone = reported(0x1000, ALLOCATOR, bare(TEXT + 0x1C), bare(TEXT + 0x140))
    joined = Joined(KmemleakResult(USED, {0x1000: gone}))
    said: Counter[str] = Counter()
    joined.count(entry(0x1000), said)
    assert reachability(said, LEAK, joined.stacks_left(resolve, 1)) == Reachability(unreferenced=1)
