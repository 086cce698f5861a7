"""The rule: prior and weights add up to log-odds, these give the score, and gates the verdict.

docs/verdicts.md tells it to the user. The sum of the weights in the evidence of a site is its
log-odds, the prior and the correction for correlated witnesses included, so that every score
can be worked out again from the report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kleak.analysis.findings import Finding, Witness
from kleak.analysis.weights import WEIGHTS, Fact
from kleak.model import Evidence, Verdict

CONFIRMED_SCORE = 95.0
LIKELY_SCORE = 75.0
RETAINED_BELOW_SCORE = 50.0

_SET_UP = frozenset({Fact.FIRST_CYCLE, Fact.PLATEAU, Fact.PAGES_HELD})
_SEEN_BY_THE_KERNEL = frozenset({Fact.REGION_THERE, Fact.UNREFERENCED})
_FREED = frozenset({Fact.REGION_GONE, Fact.NOT_TRACKED, Fact.PAGES_FREE})
_EVERY_CYCLE = frozenset({Fact.EVERY_CYCLE, Fact.EVERY_CYCLE_EQUAL})


def weigh(
    findings: Sequence[tuple[Witness, Finding]], *, capped: str, cap: float
) -> tuple[Evidence, ...]:
    """The findings with their weights, in the order given, then correction and prior.

    ``capped`` is the source whose witnesses are correlated: together they count ``cap`` at most.
    Findings against a leak are never capped.
    """
    evidence = [
        Evidence(witness.name, finding.says, WEIGHTS[finding.fact].log_odds)
        for witness, finding in findings
    ]
    total = sum(
        WEIGHTS[finding.fact].log_odds for witness, finding in findings if witness.source == capped
    )
    if total > cap:
        names = [witness.name for witness, _ in findings if witness.source == capped]
        says = f"{', '.join(names)} all ask the {capped}: together they count {cap:g} at most"
        evidence.append(Evidence("correlation", says, cap - total))
    prior = "before any evidence: most of what is outstanding does not leak"
    evidence.append(Evidence("prior", prior, WEIGHTS[Fact.PRIOR].log_odds))
    return tuple(evidence)


def score(evidence: Sequence[Evidence]) -> float:
    """The probability that the log-odds stand for, in per cent, to one decimal."""
    log_odds = sum(item.weight for item in evidence)
    return round(100 / (1 + math.exp(-log_odds)), 1)


def decide(percent: float, facts: frozenset[Fact], *, complete: bool) -> Verdict:
    """The verdict for a score, with what each verdict demands besides.

    ``complete`` is whether the trace lost nothing that may change a result.
    """
    independent = not facts.isdisjoint(_SEEN_BY_THE_KERNEL)
    repeated = complete and Fact.DIRECT in facts and not facts.isdisjoint(_EVERY_CYCLE)
    denied = Fact.REFERENCED in facts
    if percent >= CONFIRMED_SCORE and (independent or repeated) and not denied:
        return Verdict.CONFIRMED
    if percent >= LIKELY_SCORE:
        return Verdict.LIKELY
    set_up = not facts.isdisjoint(_SET_UP) and facts.isdisjoint(_FREED)
    if percent < RETAINED_BELOW_SCORE and set_up:
        return Verdict.RETAINED
    return Verdict.POSSIBLE
