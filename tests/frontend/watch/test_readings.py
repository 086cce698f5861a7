"""Readings of a live ledger, compared, sorted and filtered."""

from __future__ import annotations

import pytest

from kleak.errors import UsageError
from kleak.model.session import Frame, Tally
from kleak.watch.readings import (
    ORDERS,
    Comparison,
    Held,
    LiveSite,
    Reading,
    Refresh,
    Since,
    parse_filter,
    sort,
)

SECOND = 1_000_000_000


def site(allocator: str, *symbols: str, module: str | None = None) -> LiveSite:
    inner, *outer = (Frame(module, symbol, 8) for symbol in symbols)
    return LiveSite(allocator, (Frame(None, "__kmalloc_noprof", 4), inner, *outer))


SIGNALFD = site("kmalloc", "do_signalfd4", "do_syscall_64")
INODE = site("reclaimable_cache", "ext4_alloc_inode", "vfs_open", module="ext4")
AREA = site("vmalloc", "copy_process", "kernel_clone")


def reading(
    seconds: float,
    held: dict[LiveSite, Held],
    *,
    marked: dict[LiveSite, Held] | None = None,
    mark_s: float = 0,
    ages_s: float | None = None,
) -> Reading:
    at = int(seconds * SECOND)
    by_since = {Since.START: held}
    began = {Since.START: 0}
    if marked is not None:
        by_since[Since.MARK], began[Since.MARK] = marked, int(mark_s * SECOND)
    ages_at = at if ages_s is None else int(ages_s * SECOND)
    return Reading(at, by_since, began, len(began) - 1, ages_at, {"missed_kfree_events": 2}, 5)


def row(refresh: Refresh, of: LiveSite):
    (found,) = [row for row in refresh.rows if row.site is of]
    return found


def test_first_reading_has_no_change() -> None:
    refresh = Comparison(Since.START).update(reading(3, {SIGNALFD: Held(7, 56, 1 * SECOND)}))
    assert refresh.elapsed_s is None
    assert refresh.total == Tally(7, 56)
    assert refresh.change == Tally()
    assert row(refresh, SIGNALFD).rate == 0.0
    assert row(refresh, SIGNALFD).age_s == 2.0
    assert not row(refresh, SIGNALFD).age_is_bound
    assert refresh.watched_s == 3.0
    assert (refresh.lost, refresh.evicted_stacks) == ({"missed_kfree_events": 2}, 5)


def test_changes_of_sites_that_grow_come_and_go() -> None:
    comparison = Comparison(Since.START)
    comparison.update(reading(1, {SIGNALFD: Held(7, 56, 0), AREA: Held(2, 8192, 0)}))
    refresh = comparison.update(reading(3, {SIGNALFD: Held(18, 144, 0), INODE: Held(1, 1096, 0)}))
    assert refresh.elapsed_s == 2.0
    assert row(refresh, SIGNALFD).change == Tally(11, 88)
    assert row(refresh, INODE).change == Tally(1, 1096)
    gone = row(refresh, AREA)
    assert (gone.objects, gone.size_bytes, gone.change) == (0, 0, Tally(-2, -8192))
    assert gone.age_s is None
    assert refresh.total == Tally(19, 1240)
    assert refresh.change == Tally(10, 88 + 1096 - 8192)
    assert not any(row.site is AREA for row in comparison.update(reading(5, {})).rows)


def test_rate_of_steady_growth_is_that_growth_from_the_first_change_on() -> None:
    comparison = Comparison(Since.START)
    for seconds in range(0, 300, 2):
        refresh = comparison.update(reading(seconds, {SIGNALFD: Held(1, 50 * seconds, 0)}))
        if seconds:
            assert row(refresh, SIGNALFD).rate == pytest.approx(50)


def test_rate_falls_when_growth_ends() -> None:
    comparison = Comparison(Since.START)
    comparison.update(reading(0, {}))
    rates = [
        row(comparison.update(reading(s, {SIGNALFD: Held(1, 6000, 0)})), SIGNALFD).rate
        for s in (60, 120, 600)
    ]
    assert rates[0] == pytest.approx(100)
    assert rates[0] > rates[1] > rates[2] > 0


def test_since_mark_counts_apart() -> None:
    held = {SIGNALFD: Held(40, 320, 1 * SECOND)}
    marked = {SIGNALFD: Held(17, 136, 12 * SECOND)}
    refresh = Comparison(Since.MARK).update(reading(20, held, marked=marked, mark_s=10))
    assert refresh.total == Tally(17, 136)
    assert refresh.watched_s == 10.0
    assert row(refresh, SIGNALFD).age_s == 8.0


def test_age_not_read_yet_is_a_bound() -> None:
    held = {SIGNALFD: Held(3, 24, None)}
    refresh = Comparison(Since.START).update(reading(9, held, ages_s=5))
    assert (row(refresh, SIGNALFD).age_s, row(refresh, SIGNALFD).age_is_bound) == (4.0, True)
    assert refresh.ages_s == 4.0
    # Nothing since a mark is older than the mark.
    refresh = Comparison(Since.MARK).update(reading(9, held, marked=held, mark_s=7, ages_s=5))
    assert row(refresh, SIGNALFD).age_s == 2.0


def test_memory_is_that_of_one_reading() -> None:
    comparison = Comparison(Since.START)
    for second in range(100):
        comparison.update(reading(second, {site("kmalloc", f"f{second}"): Held(1, 8, 0)}))
    assert len(comparison._before) == 1


@pytest.fixture
def refresh() -> Refresh:
    comparison = Comparison(Since.START)
    comparison.update(reading(0, {INODE: Held(90, 98640, 0)}))
    return comparison.update(
        reading(
            100,
            {
                SIGNALFD: Held(37, 296, 99 * SECOND),
                INODE: Held(31, 33976, 0),
                AREA: Held(2, 32768, 40 * SECOND),
            },
        )
    )


@pytest.mark.parametrize(
    ("order", "sites"),
    [
        ("bytes", [INODE, AREA, SIGNALFD]),
        ("count", [SIGNALFD, INODE, AREA]),
        ("change", [AREA, SIGNALFD, INODE]),
        ("rate", [AREA, SIGNALFD, INODE]),
        ("age", [INODE, AREA, SIGNALFD]),
        ("function", [AREA, SIGNALFD, INODE]),
        ("module", [AREA, SIGNALFD, INODE]),
        ("allocator", [SIGNALFD, INODE, AREA]),
    ],
)
def test_sorting(refresh: Refresh, order: str, sites: list[LiveSite]) -> None:
    assert [row.site for row in sort(refresh.rows, order)] == sites
    if order != "module":  # of two without a module the larger is first, either way
        assert [row.site for row in sort(refresh.rows, order, inverted=True)] == sites[::-1]


def test_every_order_is_tested_above() -> None:
    (mark,) = [m for m in test_sorting.pytestmark if m.name == "parametrize"]
    assert {order for order, _ in mark.args[1]} == set(ORDERS)


@pytest.mark.parametrize(
    ("text", "sites"),
    [
        ("", {SIGNALFD, INODE, AREA}),
        ("bytes>32k", {INODE}),
        ("bytes>=32k", {INODE, AREA}),
        ("bytes<1k", {SIGNALFD}),
        ("count=37", {SIGNALFD}),
        ("count<=31 bytes>32.5k", {INODE}),
        ("change>0", {SIGNALFD, AREA}),
        ("change<-1", {INODE}),
        ("rate<0", {INODE}),
        ("age>59", {INODE, AREA}),
        ("function=do_*", {SIGNALFD}),
        ("module=ext4", {INODE}),
        ("allocator=*alloc", {SIGNALFD, AREA}),
        ("kernel_clo", {AREA}),
        ("nothing_of_this", set()),
    ],
)
def test_filters(refresh: Refresh, text: str, sites: set[LiveSite]) -> None:
    condition = parse_filter(text)
    assert {row.site for row in refresh.rows if condition(row)} == sites


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("size>3", "filter: no key size; there are bytes, count, change, rate, age, function,"),
        ("bytes>many", "filter: many is no number like 17 or 1.5M"),
        ("bytes>", "filter: bytes> is no term like bytes>1M or function=do_*"),
        ("function>3", "filter: function is text, which is compared by ="),
        ("ok =3", "filter: =3 is no term like bytes>1M or function=do_*"),
    ],
)
def test_filters_that_are_none(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_filter(text)
    assert str(raised.value).startswith(says)


def test_names_of_a_site() -> None:
    assert (SIGNALFD.function, SIGNALFD.module) == ("do_signalfd4", None)
    assert (INODE.function, INODE.module) == ("ext4_alloc_inode", "ext4")
    nameless = LiveSite("pages", (Frame("gone", None, 0x40), Frame(None, None, 0xFFFF)))
    assert nameless.function == ".text+0x40"
    assert LiveSite("pages", ()).function == "?"
