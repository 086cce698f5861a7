"""The scoreboard's arithmetic, and that corpus and truth name the same cases."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bench.accuracy import page, peers
from bench.accuracy.score import Ran, Score, is_exact, score, total
from tests.support.build_modules import TOP
from tests.support.corpus import CASES, DRIVERS, INNOCENTS, LEAKS, Case, Leak

SOURCES = TOP / "tests" / "modules" / "corpus"
LEAK = Case("kmalloc", Leak("leak_it", "kmalloc", 3, 128))
INNOCENT = Case("innocent")


def site(
    function: str, verdict: str = "likely", rank: int = 1, counts: tuple[int, ...] = (3, 3, 3)
) -> dict[str, Any]:
    return {
        "rank": rank,
        "verdict": verdict,
        "allocator": "kmalloc",
        "frames": [{"symbol": function, "module": "corpus", "offset": 16}],
        "per_cycle": [{"count": count, "bytes": count * 128} for count in counts],
    }


def record(*sites: dict[str, Any], lost: dict[str, int] | None = None) -> dict[str, Any]:
    trust = {"lost": lost or {}, "complete": not lost}
    return {"failure": None, "report": {"sites": list(sites), "trust": trust}}


def test_a_leak_that_is_found() -> None:
    one = score(LEAK, record(site("leak_it.constprop.0", "confirmed")))
    assert (one.found, one.rank, one.exact, one.verdict) == (True, 1, True, "confirmed")
    assert (one.reported, one.right, one.first_wrong) == (1, 1, None)


def test_a_leak_that_is_only_possible_is_not_found() -> None:
    one = score(LEAK, record(site("other"), site("leak_it", "possible", 2)))
    assert (one.found, one.rank, one.reported, one.right) == (False, 2, 1, 0)
    assert one.first_wrong == "kmalloc: other [corpus]"


def test_an_innocent_that_is_accused() -> None:
    one = score(INNOCENT, record(site("other")))
    assert (one.reported, one.right, one.exact) == (1, 0, None)


@pytest.mark.parametrize("counts", [(3, 3), (3, 3, 2), (4, 3, 3)])
def test_counts_are_exact_by_cycle(counts: tuple[int, ...]) -> None:
    assert LEAK.leak is not None
    assert not is_exact(site("leak_it", counts=counts), LEAK.leak, 3)


def test_bytes_and_allocator_are_exact() -> None:
    assert LEAK.leak is not None
    other = site("leak_it")
    other["per_cycle"][1]["bytes"] += 1
    assert not is_exact(other, LEAK.leak, 3)
    assert not is_exact({**site("leak_it"), "allocator": "pages"}, LEAK.leak, 3)
    assert is_exact(other, Leak("leak_it", "kmalloc", (3, 3, 3)), 3)


def test_totals() -> None:
    found = score(LEAK, record(site("leak_it")))
    missed = score(LEAK, record(site("leak_it", "possible")))
    accused = score(INNOCENT, record(site("other")))
    sums = total([found, missed, accused])
    assert (sums.leaks, sums.found, sums.reported, sums.right, sums.accused) == (2, 1, 2, 1, 1)
    assert (sums.recall, sums.precision) == (0.5, 0.5)


def test_the_page_lists_every_exception() -> None:
    scores: list[Score] = [
        score(LEAK, record(site("leak_it", "possible", counts=(1, 1, 1)), lost={"x": 7})),
        score(INNOCENT, record(site("other"))),
    ]
    text = page.render({"6.12": Ran(scores, absent=["brd"], commit="1234abc")}, expected=4)
    assert "1 of 4 cases were not run." in text
    assert "This kernel has no module `brd`." in text
    assert "Run at commit 1234abc." in text
    assert (
        "`kmalloc`: not found (best verdict of the true site: possible); counts are not exact"
        in text
    )
    assert "the trace is incomplete: x 7" in text
    assert "`innocent`: accused in error: kmalloc: other [corpus]" in text


def test_corpus_and_truth_name_the_same_cases() -> None:
    text = "".join(path.read_text() for path in sorted(SOURCES.glob("*.c")))
    written = set(re.findall(r"\{ \"(\w+)\",", text))
    known = {
        next((word[5:] for word in case.parameters if word.startswith("case=")), case.name)
        for case in LEAKS + INNOCENTS
    }
    assert written == known


def test_true_functions_are_in_the_sources() -> None:
    text = "".join(path.read_text() for path in sorted(SOURCES.glob("*.c")))
    for case in LEAKS:
        assert case.leak is not None
        assert re.search(rf"\b{case.leak.function}\(", text), case.name


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(LEAKS) + len(INNOCENTS) >= 40
    assert len(DRIVERS) >= 10
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


MEMLEAK = """\
[22:40:01] Top 1000000 stacks with outstanding allocations:
\t96 bytes in 1 allocations from stack
\t\t0xffffffff81234567\t__kmem_cache_alloc_node+0x1a [kernel]
\t\t0xffffffffc0001010\t[unknown]
\t640 bytes in 5 allocations from stack
\t\t0xffffffffc0002010\tsomething_else+0x7 [other]
\t4096 bytes in 2 allocations from stack
\t\t0xffffffff81234567\t__kmem_cache_alloc_node+0x1a [kernel]
"""


def test_a_peer_is_scored_by_the_addresses_that_it_prints() -> None:
    places = {0xFFFFFFFFC0001010: frozenset({"leak_it"}), 0xFFFFFFFFC0002010: frozenset({"safe"})}
    one = peers.score(
        "memleak-bpfcc",
        peers.memleak_stacks(MEMLEAK),
        lambda address: places.get(address, frozenset()),
        {"leak_it": 1, "leak_more": 3},
    )
    assert (one.functions, one.found, one.exact, one.missing) == (2, 1, 1, ("leak_more",))
    assert (one.reported, one.right, one.accused) == (3, 1, 1)


def test_kmemleak_is_scored_by_its_bare_addresses() -> None:
    text = """\
unreferenced object 0xffff8880037d1300 (size 128):
  comm "insmod", pid 75, jiffies 4294898958
  hex dump (first 32 bytes):
    01 00 00 00 00 00 00 00 74 29 be 81 ff ff ff ff  ........t)......
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace (crc 52fdd26d):
    __kmalloc_cache_noprof+0x18c/0x2e0
    0xffffffffa00061d2
    do_one_initcall+0x4f/0x1c0
"""
    assert peers.kmemleak_stacks(text) == [peers.Stack(1, (0xFFFFFFFFA00061D2,))]


def test_what_functions_leak_is_summed_over_cases() -> None:
    twin = Case("twin", Leak("leak_it", "kmalloc", (1, 0, 1), 128))
    assert peers.truth([LEAK, twin, INNOCENT]) == {"leak_it": 3 * 3 + 2}
