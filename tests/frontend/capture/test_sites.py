"""Sites from what the maps hold, given here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from kleak.analysis.judge import judge
from kleak.analysis.selection import group
from kleak.analysis.weights import Fact
from kleak.analysis.witnesses import vmallocinfo
from kleak.capture.engine.ledger import _entry
from kleak.capture.engine.records import LedgerEntry, StackTotal
from kleak.capture.sites import build_sites, fair_share
from kleak.capture.witnesses.kmemleak import KmemleakResult
from kleak.capture.witnesses.reachability import Joined
from kleak.model.session import CycleTally, Frame, Tally, VmallocRegion
from tests.support.made_names import MadeNames
from tests.support.samples import session


@dataclass
class Ledger:
    rows: list[StackTotal] = field(default_factory=list)
    entries: list[LedgerEntry] = field(default_factory=list)
    frames: dict[int, tuple[int, ...]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def add(self, stack: int, cycle: int, allocated: int, freed: int = 0) -> None:
        self.rows.append(
            StackTotal(stack, cycle, "kmalloc", allocated, 64 * allocated, 60 * allocated,
                       freed, 64 * freed, 60 * freed)
        )  # fmt: skip
        for _ in range(allocated - freed):
            number = len(self.entries)
            self.entries.append(
                LedgerEntry(4096 + 64 * number, stack, 64, 60, 1000 - number, cycle, "kmalloc",
                            1, "somebody")
            )  # fmt: skip

    def totals(self) -> Sequence[StackTotal]:
        return self.rows

    def stacks(self) -> Mapping[int, tuple[int, ...]]:
        return self.frames

    def call_sites(self) -> None:
        return None

    def outstanding(self) -> Iterator[LedgerEntry]:
        return iter(self.entries)

    def oldest(self, keep: int, before_ns: int) -> Iterator[LedgerEntry]:
        self.asked.append(keep)
        return iter(self.entries)


def resolve(address: int, cycle: int) -> Frame:
    """The module moves from cycle to cycle: 0x1000 in 1, 0x2000 in 2."""
    base = 0x1000 * cycle
    if base <= address < base + 0x1000:
        return Frame("leaky", "leak", address - base)
    return Frame(None, "caller", address)


def test_stacks_with_the_same_frames_are_one_site() -> None:
    """Also those at other addresses in another cycle; at the same addresses they are others."""
    ledger = Ledger(frames={5: (0x1010, 9), 6: (0x2010, 9)})
    ledger.add(5, 1, 3, 1)
    ledger.add(6, 2, 4)
    ledger.add(5, 2, 1)  # of which nobody knows the module
    leak, other = build_sites(ledger, MadeNames(resolve), cycles=2, keep=1000)
    assert leak.frames == (Frame("leaky", "leak", 0x10), Frame(None, "caller", 9))
    assert leak.cycles == (
        CycleTally(Tally(3, 192), Tally(1, 64)),
        CycleTally(Tally(4, 256), Tally()),
    )
    assert leak.outstanding == Tally(6, 384)
    assert leak.requested_bytes == 360
    assert [kept.cycle for kept in leak.kept] == [2, 2, 2, 2, 1, 1]  # the oldest first
    assert other.frames[0] == Frame(None, "caller", 0x1010)


def test_what_a_load_made_that_came_while_the_maps_were_read_is_left_out() -> None:
    """In totals, in what is kept, in what kmemleak says; where no frames tell cycles apart."""
    ledger = Ledger(frames={5: (0x1010, 9), 6: (0x3010, 9)})
    for cycle in (1, 2, 3):
        ledger.add(5, cycle, 2)
    ledger.add(6, 3, 7)
    said = KmemleakResult("used", asked={entry.address: None for entry in ledger.entries})
    (found,) = build_sites(
        ledger, MadeNames(lambda address, era: resolve(address, 1), eras=False),
        cycles=2, keep=1000, kmemleak=Joined(said),
    )  # fmt: skip
    assert found.outstanding == Tally(4, 256)
    assert found.requested_bytes == 240
    assert sorted(kept.cycle for kept in found.kept) == [1, 1, 2, 2]
    assert found.reachability is not None
    assert found.reachability.asked == 4


@pytest.mark.parametrize(("function", "guard"), [("vmalloc", 1), ("ioremap", 1), ("vm_map_ram", 0)])
def test_an_area_has_the_same_size_in_what_is_kept_as_in_the_totals(
    function: str, guard: int
) -> None:
    """The event's includes the guard page, where there is one."""
    page = os.sysconf("SC_PAGESIZE")
    size = 5 * page
    ledger = Ledger(frames={1: (7, 9)})
    ledger.rows.append(StackTotal(1, 1, "vmap_area", 2, 2 * size, 2 * size, 0, 0, 0))
    ledger.entries += [
        LedgerEntry(address, 1, size, size, 7, 1, "vmap_area", 331, "insmod")
        for address in (1 << 20, 2 << 20)
    ]
    (site,) = build_sites(
        ledger, MadeNames(lambda address, _: Frame(None, function if address == 7 else "f", 1)),
        cycles=1, keep=5,
    )  # fmt: skip
    assert site.outstanding == Tally(2, 2 * (size - guard * page))
    assert [one.size_bytes for one in site.kept] == [size - guard * page] * 2
    assert [one.requested_bytes for one in site.kept] == [size - guard * page] * 2
    by_process = group(judge(session(site)), "process", [session(site)])
    (process,) = by_process.groups or ()
    assert process.outstanding == site.outstanding
    # /proc/vmallocinfo counts it.
    regions = [VmallocRegion(one.address, size, 4, function, None) for one in site.kept]
    found = vmallocinfo.judge(site, session(site, regions=regions))
    assert found is not None
    assert found.fact is Fact.REGION_THERE


def test_counts_are_whole_where_few_are_kept() -> None:
    ledger = Ledger(frames={stack: (0x1000 + stack, 9) for stack in range(1, 102)})
    for stack in range(1, 101):
        ledger.add(stack, 1, 1)
    ledger.add(101, 1, 53)
    sites = build_sites(ledger, MadeNames(resolve), cycles=1, keep=2)
    assert ledger.asked == [1]  # 50 times 2 for 101 sites
    assert [site.outstanding.count for site in sites] == [53] + [1] * 100
    assert all(len(site.kept) == 1 for site in sites)
    assert build_sites(ledger, MadeNames(resolve), cycles=1, keep=0)[0].kept == ()


@pytest.mark.parametrize(
    ("counts", "most", "in_all", "share"),
    [
        ([], 10, 100, 10),
        ([3, 4, 5], 10, 100, 10),
        ([30, 40, 50], 10, 100, 10),
        ([1, 1, 100, 100], 1000, 100, 49),
        ([7] * 50, 7, 100, 2),
        ([7] * 500, 7, 100, 1),
    ],
)
def test_shares(counts: list[int], most: int, in_all: int, share: int) -> None:
    assert fair_share(counts, most, in_all) == share


@pytest.mark.parametrize(
    ("order", "pages", "pieces", "page"),
    [(0, 1, 0, 0), (2, 4, 0, 0), (2, 3, 0b1, 1), (2, 1, 0b1011, 2), (2, 2, 0b0110, 0),
     (7, 128, 0, 0), (7, 127, 0, None)],
)  # fmt: skip
def test_of_a_block_that_shrank_the_page_still_held_is_asked_about(
    order: int, pages: int, pieces: int, page: int | None
) -> None:
    """Not its first, which may be anybody's by now; none where nobody noted which were freed."""
    size = pages * os.sysconf("SC_PAGESIZE")
    leaf = SimpleNamespace(
        stack=1, size=size, requested=size, time_ns=7, cycle=1, family=3, tgid=331, comm=b"insmod",
        pieces=pieces, order=order,
    )  # fmt: skip
    head = 0xFFFF888000004000
    entry = _entry(~head & (1 << 64) - 1, leaf, lambda cycle: cycle)
    assert (entry.family, entry.address, entry.held_page) == ("pages", head, page)
    ledger = Ledger(frames={1: (0x1004,)}, entries=[entry])
    ledger.rows.append(StackTotal(1, 1, "pages", 1, size, size, 0, 0, 0))
    asked = []

    def holder(address: int, tgid: int) -> str:
        asked.append((address, tgid))
        return "somebody"

    (site,) = build_sites(ledger, MadeNames(resolve), cycles=1, keep=5, holder=holder)
    if page is None:
        assert asked == []
        assert [kept.holder for kept in site.kept] == [None]
    else:
        assert asked == [(head + page * os.sysconf("SC_PAGESIZE"), 331)]
        assert [(kept.address, kept.holder) for kept in site.kept] == [(head, "somebody")]
