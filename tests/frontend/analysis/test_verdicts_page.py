"""docs/verdicts.md and the code say the same."""

from kleak.analysis import verdict
from kleak.analysis.correlations import CORRELATIONS, COUNTERS, LEDGER
from kleak.analysis.weights import Fact
from tests.support.paths import TOP

PAGE = (TOP / "docs" / "verdicts.md").read_text()


def test_the_page_has_every_weight_and_no_others():
    body = PAGE.split("## The weights")[1].split("\n## ")[0]
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    weights = [line for line in rows if line.split(" | ")[1].strip()[:2].strip("+-").isdigit()]
    assert sorted(weights) == sorted(
        f"| {fact.label} | {fact.log_odds:+.1f} | {fact.reason} |" for fact in Fact
    )
    assert len({fact.label for fact in Fact}) == len(Fact)
    assert all(fact.reason for fact in Fact)


def test_thresholds_and_caps_stand_in_the_page():
    assert f"| `confirmed` | {verdict.CONFIRMED_SCORE:.0f} or more |" in PAGE
    assert f"| `likely` | {verdict.LIKELY_SCORE:.0f} or more |" in PAGE
    assert f"| `retained` | below {verdict.RETAINED_BELOW_SCORE:.0f} |" in PAGE
    assert f"count {LEDGER.cap:g} at most, or {LEDGER.cap_lossy:g}" in PAGE
    assert f"Together they count {COUNTERS.cap:g} at most" in PAGE
    capped = [correlation for correlation in CORRELATIONS if correlation.cap is not None]
    assert capped == [LEDGER, COUNTERS]


def test_a_fact_is_cut_by_one_cap_at_most():
    assert not LEDGER.facts & COUNTERS.facts
