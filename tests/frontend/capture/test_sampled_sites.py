"""From totals and stacks to sites, where stacks are sampled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kleak.capture.engine.records import LedgerEntry, StackTotal
from kleak.capture.engine.sampling import Growth, outstanding_by_call_site, slot_of
from kleak.capture.sites import build_sites
from kleak.model.session import Frame, StackSample, Tally, TracedSite
from tests.support.made_names import MadeNames

SITE, OTHER = 0xFFFFFFFF81000100, 0xFFFFFFFF81000200
CALLERS = (0xFFFFFFFF81000300, 0xFFFFFFFF81000400)
EMITTER = 0xFFFFFFFF81000500
ONE, TWO, ELSEWHERE, PAGES = 11, 12, 13, 14
STACKS = {
    ONE: (EMITTER, SITE, CALLERS[0]),
    TWO: (EMITTER, SITE, CALLERS[1]),
    ELSEWHERE: (EMITTER, OTHER, CALLERS[0]),
    PAGES: (EMITTER, CALLERS[0]),
}
CALL_SITES = {ONE: SITE, TWO: SITE, ELSEWHERE: OTHER}
NAMES = {
    SITE: "make",
    OTHER: "fill",
    CALLERS[0]: "first",
    CALLERS[1]: "second",
    EMITTER: "__kmalloc_noprof",
}


@dataclass
class Ledger:
    rows: Sequence[StackTotal]
    entries: Sequence[LedgerEntry] = ()
    frames: Mapping[int, tuple[int, ...]] | None = None
    places: Mapping[int, int] | None = None

    def totals(self) -> Sequence[StackTotal]:
        return self.rows

    def stacks(self) -> Mapping[int, tuple[int, ...]]:
        return STACKS if self.frames is None else self.frames

    def call_sites(self) -> Mapping[int, int] | None:
        return self.places

    def outstanding(self) -> Iterator[LedgerEntry]:
        return iter(self.entries)

    def oldest(self, keep: int, before_ns: int) -> Iterator[LedgerEntry]:
        return iter(self.entries)


def resolve(address: int, cycle: int) -> Frame:
    return Frame(None, NAMES[address], 4)


NAMED = MadeNames(resolve)


def total(stack: int, made: int, freed: int, cycle: int = 1, family: str = "kmalloc") -> StackTotal:
    return StackTotal(
        stack, cycle, family, made, 64 * made, 60 * made, freed, 64 * freed, 60 * freed
    )


def build(
    *totals: StackTotal, outstanding: Sequence[LedgerEntry] = (), cycles: int = 1
) -> dict[str, TracedSite]:
    """Sites by the first function that is no allocator's; one of each."""
    ledger = Ledger(totals, outstanding, places=CALL_SITES)
    sites = build_sites(ledger, NAMED, cycles=cycles, keep=99)
    found = {
        next(frame.symbol or "" for frame in site.frames if frame.symbol != NAMES[EMITTER]): site
        for site in sites
    }
    assert len(found) == len(sites)
    return found


def symbols(site: TracedSite) -> list[str | None]:
    return [frame.symbol for frame in site.frames]


def test_a_call_site_is_one_site_with_the_stack_that_most_have() -> None:
    totals = (total(SITE, 1000, 94), total(ONE, 50, 14), total(TWO, 61, 0), total(ELSEWHERE, 5, 3))
    sites = build(*totals)
    made = sites["make"]
    assert made.cycles[0].allocated == Tally(1111, 64 * 1111)
    assert made.cycles[0].outstanding == Tally(1003, 64 * 1003)
    assert made.requested_bytes == 60 * 1003
    assert symbols(made) == ["__kmalloc_noprof", "make", "second"]
    assert made.stacks == StackSample(resolve(SITE, 1), walked=97, different=2, shown=61)
    assert sites["fill"].stacks == StackSample(resolve(OTHER, 1), 2, 1, 2)


def test_cycles_are_summed_over_the_stacks() -> None:
    (site,) = build(total(SITE, 10, 3), total(ONE, 16, 9, cycle=2), total(SITE, 5, 0, 2),
                    cycles=2).values()  # fmt: skip
    assert [cycle.outstanding.count for cycle in site.cycles] == [7, 12]
    assert [cycle.allocated.count for cycle in site.cycles] == [10, 21]


def test_a_tie_shows_the_stack_with_most_allocations() -> None:
    (site,) = build(total(SITE, 9, 0), total(ONE, 8, 7), total(TWO, 7, 6)).values()
    assert symbols(site)[2] == "first"
    assert site.stacks == StackSample(resolve(SITE, 1), 2, 2, 1)


def test_what_was_walked_was_freed() -> None:
    (site,) = build(total(SITE, 9, 0), total(TWO, 7, 7)).values()
    assert symbols(site) == ["__kmalloc_noprof", "make", "second"]
    assert site.stacks == StackSample(resolve(SITE, 1), 0, 0, 0)


def test_nothing_was_walked() -> None:
    (site,) = build(total(SITE, 9, 0)).values()
    assert symbols(site) == ["make"]
    assert site.stacks == StackSample(resolve(SITE, 1), 0, 0, 0)


def test_other_families_and_events_without_a_call_site_stay_apart() -> None:
    totals = (total(SITE, 9, 0), total(SITE, 4, 0, family="kmem_cache"))
    sites = build_sites(Ledger(totals, places=CALL_SITES), NAMED, cycles=1, keep=0)
    assert {site.allocator for site in sites} == {"kmalloc", "kmem_cache"}
    pages = build(total(PAGES, 3, 0, family="pages"))["first"]
    assert pages.stacks is None
    assert len(pages.frames) == 2


def test_without_sampling_a_stack_is_a_site() -> None:
    """Whatever bits its key has."""
    stacks = {ONE | 1 << 63: STACKS[ONE], TWO: STACKS[TWO]}
    totals = [total(key, made, 0) for key, made in zip(stacks, (5, 6), strict=True)]
    sites = build_sites(Ledger(totals, frames=stacks), NAMED, cycles=1, keep=0)
    assert [site.cycles[0].allocated.count for site in sites] == [6, 5]
    assert [symbols(site)[2] for site in sites] == ["second", "first"]
    assert all(site.stacks is None for site in sites)


def test_two_call_sites_with_one_stack_stay_two() -> None:
    totals = (total(ONE, 5, 0), total(ELSEWHERE, 6, 0))
    stacks = dict.fromkeys((ONE, ELSEWHERE), STACKS[PAGES])
    sites = build_sites(Ledger(totals, frames=stacks, places=CALL_SITES), NAMED, cycles=1, keep=0)
    assert len({(site.allocator, site.frames) for site in sites}) == 2
    assert sorted(site.cycles[0].allocated.count for site in sites) == [5, 6]


def test_kept_allocations_are_those_of_all_stacks() -> None:
    entries = [
        LedgerEntry(n, stack, 64, 60, n, 1, "kmalloc", 7, "")
        for n, stack in ((3, SITE), (1, ONE), (2, TWO))
    ]
    (site,) = build(
        total(SITE, 1, 0), total(ONE, 1, 0), total(TWO, 1, 0), outstanding=entries
    ).values()
    assert [one.address for one in site.kept] == [1, 2, 3]


def test_processes_without_a_name_are_named() -> None:
    entries = [
        LedgerEntry(n, SITE, 64, 60, n, 1, "kmalloc", n, comm)
        for n, comm in ((1, "noted"), (2, ""))
    ]
    ledger = Ledger([total(SITE, 2, 0)], entries, places=CALL_SITES)
    (site,) = build_sites(ledger, NAMED, cycles=1, keep=9, name_of="process {}".format)
    assert [one.comm for one in site.kept] == ["noted", "process 2"]


def test_outstanding_by_call_site() -> None:
    totals = [total(SITE, 10, 3), total(ONE, 5, 1), total(ELSEWHERE, 2, 0), total(PAGES, 9, 0)]
    assert outstanding_by_call_site(totals, CALL_SITES) == {SITE: 11, OTHER: 2}


class Told:
    """Notes what is to be walked more."""

    def __init__(self) -> None:
        self.last: set[int] = set()

    def walk_more(self, call_sites: Iterable[int]) -> None:
        self.last = set(call_sites)


def test_what_has_more_outstanding_than_ever_is_walked_more() -> None:
    told = Told()
    growth = Growth(told)
    growth.note({SITE: 5, OTHER: 50})
    assert told.last == {SITE, OTHER}
    growth.note({SITE: 6, OTHER: 30})
    assert told.last == {SITE}
    growth.note({SITE: 7, OTHER: 50})  # comes and goes
    assert told.last == {SITE}
    growth.note({OTHER: 51})
    assert told.last == {OTHER}


def test_slots_of_shares() -> None:
    """As the C has it: the top 12 bits of the product."""
    assert slot_of(SITE) == (SITE * 0x9E3779B97F4A7C15 % 2**64) // 2**52
    assert len({slot_of(SITE + n * 5) for n in range(200)}) > 150
