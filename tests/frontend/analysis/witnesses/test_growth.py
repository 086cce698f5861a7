import pytest

from kleak.analysis.weights import Fact
from kleak.analysis.witnesses import growth
from tests.support.samples import session, site


@pytest.mark.parametrize(
    ("counts", "fact"),
    [
        ([3], Fact.ONE_CYCLE),
        ([3, 3], Fact.BOTH_CYCLES),
        ([3, 0], Fact.FIRST_OF_TWO),
        ([0, 3], Fact.LAST_CYCLE),
        ([3, 3, 3], Fact.EVERY_CYCLE_EQUAL),
        ([1] * 10, Fact.EVERY_CYCLE_EQUAL),
        ([3, 4, 2, 5, 3], Fact.EVERY_CYCLE),
        ([5, 2, 6, 1, 7], Fact.EVERY_CYCLE),
        # Set-up in the first cycle on top of a steady leak.
        ([9, 1, 1, 1, 1], Fact.EVERY_CYCLE),
        # Three numbers that happen to fall.
        ([9, 4, 1], Fact.EVERY_CYCLE),
        ([9, 0, 0], Fact.FIRST_CYCLE),
        ([9, 0, 0, 0, 0, 0, 0, 0, 0, 0], Fact.FIRST_CYCLE),
        ([0, 0, 3], Fact.LAST_CYCLE),
        ([0] * 9 + [40], Fact.LAST_CYCLE),
        # A pool that fills.
        ([4, 2, 1, 0, 0], Fact.PLATEAU),
        ([4, 4, 0, 0, 0], Fact.PLATEAU),
        ([16, 8, 4, 2, 1], Fact.PLATEAU),
        # A leak in every third cycle, wherever the count begins.
        ([0, 0, 3, 0, 0, 3, 0, 0, 3, 0], Fact.SOME_CYCLES),
        ([3, 0, 0, 3, 0, 0, 3, 0, 0, 3], Fact.SOME_CYCLES),
        ([0, 3, 0, 0, 3], Fact.SOME_CYCLES),
        ([3, 3, 0], Fact.SOME_CYCLES),
        ([3, 0, 0, 3], Fact.FIRST_AND_LAST),
        ([0, 0, 3, 0, 0], Fact.ONE_LATER_CYCLE),
    ],
)
def test_patterns(counts, fact):
    assert growth.classify(counts) is fact


def test_says_rate():
    traced = site([3] * 5)
    assert growth.judge(traced, session(traced)).says == "+3 in every one of 5 cycles"


def test_one_cycle_says_that_growth_cannot_be_judged():
    traced = site([3])
    assert growth.judge(traced, session(traced)).says == "one cycle cannot show growth"


def test_cycle_that_failed_before_the_site_was_reached_does_not_count():
    traced = site([3, 0, 3, 3])
    captured = session(traced, failures={2: "insmod: exit status 1"})
    assert growth.judge(traced, captured).fact is Fact.EVERY_CYCLE_EQUAL


def test_cycle_that_failed_after_the_site_was_reached_does():
    traced = site([3, 3, 3])
    failures = {1: "init failed", 2: "init failed", 3: "init failed"}
    assert growth.judge(traced, session(traced, failures=failures)).fact is Fact.EVERY_CYCLE_EQUAL


def test_long_sessions_are_listed_short():
    traced = site([3, 4] * 20)
    says = growth.judge(traced, session(traced)).says
    assert "3, 4, 3, 4, 3, 4, 3, 4, 3, 4, ... 4" in says
