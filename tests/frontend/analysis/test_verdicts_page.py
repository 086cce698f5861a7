"""docs/verdicts.md and the code say the same."""

import pytest

from kleak.analysis import verdict
from kleak.analysis.weights import LEDGER_CAP, LEDGER_CAP_LOSSY, WEIGHTS, Fact
from tests.support.paths import TOP

PAGE = (TOP / "docs" / "verdicts.md").read_text()


@pytest.mark.parametrize("fact", list(Fact), ids=lambda fact: fact.value)
def test_every_weight_stands_in_the_page(fact):
    weight = WEIGHTS[fact]
    assert f"| {fact.value} | {weight.log_odds:+.1f} | {weight.reason} |\n" in PAGE


def test_page_has_no_other_weights():
    body = PAGE.split("## The weights")[1].split("\n## ")[0]
    cells = [line.split(" | ") for line in body.splitlines() if line.startswith("| ")]
    assert sum(row[1][:1] in "+-" and row[1][1:2].isdigit() for row in cells) == len(Fact)


def test_thresholds_and_caps_stand_in_the_page():
    assert f"| `confirmed` | {verdict.CONFIRMED_SCORE:.0f} or more |" in PAGE
    assert f"| `likely` | {verdict.LIKELY_SCORE:.0f} or more |" in PAGE
    assert f"| `retained` | below {verdict.RETAINED_BELOW_SCORE:.0f} |" in PAGE
    assert f"count {LEDGER_CAP:g} at most, or {LEDGER_CAP_LOSSY:g}" in PAGE
