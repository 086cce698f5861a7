"""The gates in front of each verdict, apart from the witnesses."""

import pytest

from kleak.analysis.findings import Finding
from kleak.analysis.verdict import decide, weigh
from kleak.analysis.weights import Fact
from kleak.model.report import Verdict

GROWING = frozenset({Fact.DIRECT, Fact.EVERY_CYCLE_EQUAL})
LISTED = frozenset({Fact.DEEP, Fact.REGION_THERE})


@pytest.mark.parametrize(
    ("percent", "facts", "complete", "verdict"),
    [
        (95.0, GROWING, True, Verdict.CONFIRMED),
        (95.0, frozenset({Fact.DIRECT, Fact.EVERY_CYCLE}), True, Verdict.CONFIRMED),
        (94.9, GROWING, True, Verdict.LIKELY),
        (99.9, GROWING, False, Verdict.LIKELY),
        (95.0, frozenset({Fact.CONSTRUCTOR, Fact.EVERY_CYCLE_EQUAL}), True, Verdict.CONFIRMED),
        (99.9, frozenset({Fact.CONSTRUCTOR, Fact.EVERY_CYCLE}), True, Verdict.LIKELY),
        (99.9, frozenset({Fact.DEEP, Fact.EVERY_CYCLE_EQUAL}), True, Verdict.LIKELY),
        (99.9, frozenset({Fact.DIRECT, Fact.BOTH_CYCLES}), True, Verdict.LIKELY),
        (99.9, frozenset({Fact.DIRECT, Fact.SOME_CYCLES}), True, Verdict.LIKELY),
        (95.0, LISTED, False, Verdict.CONFIRMED),
        (95.0, frozenset({Fact.CACHE_LEFT}), False, Verdict.CONFIRMED),
        (95.0, frozenset({Fact.NAME_STAYS}), False, Verdict.CONFIRMED),
        (95.0, frozenset({Fact.TAG_LEFT}), False, Verdict.CONFIRMED),
        (99.9, GROWING | {Fact.CACHE_DID_NOT_GROW}, True, Verdict.LIKELY),
        (99.9, LISTED | {Fact.ROWS_DID_NOT_GROW}, True, Verdict.LIKELY),
        (95.0, frozenset({Fact.DEEP, Fact.UNREFERENCED}), False, Verdict.CONFIRMED),
        (99.9, GROWING | {Fact.REFERENCED}, True, Verdict.LIKELY),
        (99.9, LISTED | {Fact.REFERENCED}, True, Verdict.LIKELY),
        (99.9, GROWING | {Fact.OWN_REFERENCE}, True, Verdict.LIKELY),
        (99.9, GROWING | {Fact.OWN_REFERENCE, Fact.TAG_LEFT}, True, Verdict.CONFIRMED),
        (99.9, GROWING | {Fact.REFERENCED_LARGE}, True, Verdict.CONFIRMED),
        (99.9, frozenset({Fact.NAME_STAYS, Fact.REFERENCED}), True, Verdict.CONFIRMED),
        (99.9, frozenset({Fact.NAME_STAYS, Fact.NOT_TRACKED}), True, Verdict.LIKELY),
        (99.9, frozenset({Fact.REGION_PARTLY}), True, Verdict.LIKELY),
        (75.0, frozenset(), False, Verdict.LIKELY),
        (74.9, GROWING, True, Verdict.POSSIBLE),
        (49.9, frozenset({Fact.FIRST_CYCLE}), True, Verdict.RETAINED),
        (49.9, frozenset({Fact.PLATEAU}), True, Verdict.RETAINED),
        (50.0, frozenset({Fact.FIRST_CYCLE}), True, Verdict.POSSIBLE),
        (10.0, frozenset({Fact.FIRST_OF_TWO}), True, Verdict.POSSIBLE),
        (1.0, frozenset({Fact.FIRST_CYCLE, Fact.REGION_GONE}), True, Verdict.POSSIBLE),
        (1.0, frozenset({Fact.FIRST_CYCLE, Fact.NOT_TRACKED}), True, Verdict.POSSIBLE),
        (0.1, frozenset({Fact.DEEP}), True, Verdict.POSSIBLE),
    ],
)
def test_verdict(percent, facts, complete, verdict):
    assert decide(percent, facts, complete=complete) is verdict


def test_what_is_told_twice_is_cut_once():
    twice = [Finding(name, Fact.EVERY_CYCLE_EQUAL, "") for name in ("slabinfo", "vmallocinfo")]
    evidence = weigh(twice, complete=True)
    assert sum(one.weight for one in evidence) == pytest.approx(
        Fact.EVERY_CYCLE_EQUAL.log_odds + Fact.PRIOR.log_odds
    )


def test_equal_growth_outweighs_a_deep_stack_only_where_nothing_is_against_it():
    growing = [Finding("x", fact, "") for fact in (Fact.DEEP, Fact.EVERY_CYCLE_EQUAL)]
    for fact, outweighs in {
        Fact.NONE_FREED: True,
        Fact.SOME_FREED: False,
        Fact.REFERENCED: False,
        Fact.OWN_REFERENCE: False,
        Fact.PAGES_HELD: False,
        Fact.NOT_TRACKED: False,
        Fact.STILL_LOADED: False,
        Fact.STILL_ALLOCATED: False,
        Fact.SURVIVED_LOSSY: False,
    }.items():
        others = {fact} if outweighs or fact is Fact.SOME_FREED else {fact, Fact.NONE_FREED}
        findings = [*growing, *(Finding("y", one, "") for one in others)]
        said = {one.witness for one in weigh(findings, complete=True)}
        assert ("kept each time" in said) is outweighs, fact
