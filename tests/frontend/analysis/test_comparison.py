"""Two reports against each other: diff and baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kleak.analysis import baseline
from kleak.analysis.comparison import Kind, compare
from kleak.analysis.judge import judge
from kleak.errors import UsageError
from kleak.model.session import Frame, Target
from tests.support.samples import KERNFS, LEAK, session, site, stack

MOVED = stack(
    "__kmalloc_noprof+0x9e <- leak_it.isra.0+0x33 [leaky] leaky.c:44 <- "
    "leaky_init+0x11 [leaky] leaky.c:90 <- do_one_initcall+0x5 <- load_module+0x9"
)
SECOND_CALL = (LEAK[0], replace(LEAK[1], offset=0x99), *LEAK[2:])


def report(*sites, **more):
    return judge(session(*sites, **more))


def kinds(before, after):
    return [change.kind for change in compare(before, after).changes]


def test_a_site_is_the_same_in_another_build():
    (change,) = compare(report(site([3] * 5)), report(site([3] * 7, frames=MOVED))).changes
    assert change.kind is Kind.SAME
    assert (change.before.rate, change.after.rate) == (3, 3)
    assert change.frames[0].source.line == 44


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ([3] * 5, [3] * 5, Kind.SAME),
        ([3] * 5, [3] * 2, Kind.SAME),
        ([3] * 5, [4] * 3, Kind.GREW),
        ([4] * 3, [3] * 5, Kind.SHRANK),
        ([13] * 5, [14] * 5, Kind.GREW),
        ([11, 19, 13, 17, 12], [12, 18, 14, 17, 13], Kind.SAME),
        ([11, 19, 13, 17, 12], [31, 37, 29, 41, 30], Kind.GREW),
        ([1, 0, 0, 0, 0], [1, 0, 0], Kind.SAME),
        ([0, 0, 7, 0, 0, 7], [7] * 6, Kind.GREW),
        ([3], [3, 4, 2], Kind.SAME),
        ([3], [7], Kind.GREW),
    ],
)
def test_rates_by_cycle(before, after, kind):
    assert kinds(report(site(before)), report(site(after))) == [kind]


def test_without_cycles_any_higher_rate_counts():
    one = report(site([3] * 5))
    unknown = replace(one, sites=(replace(one.sites[0], per_cycle=None),))
    more = replace(unknown, cycles=4)
    assert kinds(unknown, unknown) == [Kind.SAME]
    assert kinds(unknown, more) == [Kind.GREW]


def test_what_appeared_comes_first_and_what_went_is_told():
    before = report(site([3] * 5), site([2] * 5, frames=KERNFS))
    other = stack("__kmalloc+0x1 <- other+0x2 [leaky]")
    after = report(site([5] * 5, frames=LEAK), site([1] * 5, frames=other))
    assert kinds(before, after) == [Kind.APPEARED, Kind.GREW, Kind.WENT]


def test_two_calls_in_a_function_are_one_site():
    before = report(site([3] * 5))
    after = report(site([3] * 5), site([2] * 5, frames=SECOND_CALL))
    (change,) = compare(before, after).changes
    assert (change.kind, change.before.sites, change.after.sites) == (Kind.GREW, 1, 2)
    assert change.after.rate == 5


def test_the_allocator_tells_sites_apart():
    after = report(site([3] * 5, allocator="pages"))
    assert kinds(report(site([3] * 5)), after) == [Kind.APPEARED, Kind.WENT]


def test_reports_of_different_targets_cannot_be_compared():
    other = report(site([3] * 5), target=Target("module", "other"))
    with pytest.raises(UsageError, match="of module leaky and of module other"):
        compare(report(site([3] * 5)), other)
    unnamed = (Frame(None, None, 1 << 63),)
    first = report(site([1], frames=unnamed), target=Target("snapshots", "a (2 snapshots)"))
    second = report(site([1], frames=unnamed), target=Target("snapshots", "b (2 snapshots)"))
    assert kinds(first, second) == [Kind.SAME]


def test_a_baseline_excuses_what_it_has_and_no_more():
    known = report(site([3] * 5), site([2] * 5, frames=KERNFS))
    new = stack("__kmalloc+0x1 <- other+0x2 [leaky]")
    now = report(site([3] * 7), site([5] * 7, frames=KERNFS), site([1] * 7, frames=new))
    marked = baseline.apply(now, known, "base.json")
    by_function = {one.frames[0].symbol: one for one in marked.sites}
    assert by_function["leak_it"].excuse.says == ("known: 3 objects a cycle, 3 in base.json")
    worse = by_function["__kernfs_new_node"]
    assert worse.excuse is None
    assert worse.evidence[-1].says == "known, but grew: 5 objects a cycle, 2 in base.json"
    assert worse.evidence[-1].weight == 0
    assert by_function["other"].excuse is None
    assert (
        marked.trust.notes[-1] == "baseline base.json: 1 known, 1 worse, 1 new, 0 no longer there"
    )


def test_a_baseline_of_another_target_excuses_nothing():
    other = report(site([3] * 5), target=Target("module", "other"))
    marked = baseline.apply(report(site([3] * 5)), other, "base.json")
    assert marked.sites[0].excuse is None
    assert marked.trust.notes == ("baseline base.json is of module other: nothing is known",)


def test_the_first_excuse_stays():
    now = report(site([3] * 5))
    first = baseline.apply(now, now, "base.json")
    again = baseline.apply(first, now, "other.json")
    assert again.sites[0].excuse == first.sites[0].excuse
