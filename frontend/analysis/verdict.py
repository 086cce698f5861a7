"""The rule: prior and weights add up to log-odds, these give the score, and gates the verdict.

docs/verdicts.md tells it to the user. The sum of the weights in the evidence of a site is its
log-odds, the prior and the correction for correlated witnesses included, so that every score
can be worked out again from the report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

from kleak.analysis.findings import Finding, Witness
from kleak.analysis.weights import NOT_THERE, STILL_THERE, WEIGHTS, Fact
from kleak.model.report import Evidence, Verdict

CONFIRMED_SCORE = 95.0
LIKELY_SCORE = 75.0
RETAINED_BELOW_SCORE = 50.0

_SET_UP = frozenset({Fact.FIRST_CYCLE, Fact.PLATEAU, Fact.PAGES_HELD})
_INDEPENDENT = frozenset(
    {Fact.REGION_THERE, Fact.UNREFERENCED, Fact.TAG_LEFT, Fact.CACHE_LEFT, Fact.NAME_STAYS}
)
_FREED = frozenset(
    {
        Fact.REGION_GONE,
        Fact.NOT_TRACKED,
        Fact.PAGES_FREE,
        Fact.PAGES_REUSED,
        Fact.ROWS_DID_NOT_GROW,
    }
)
_REGISTERED = frozenset({Fact.NAME_STAYS, Fact.DEVICE_STAYS})
_REPEATED = (
    frozenset({Fact.DIRECT, Fact.EVERY_CYCLE}),
    frozenset({Fact.DIRECT, Fact.EVERY_CYCLE_EQUAL}),
    frozenset({Fact.CONSTRUCTOR, Fact.EVERY_CYCLE_EQUAL}),
)


def weigh(
    findings: Sequence[tuple[Witness, Finding]], caps: Mapping[str, float]
) -> tuple[Evidence, ...]:
    """The findings with their weights, in the order given, then corrections and prior.

    ``caps`` are the sources whose witnesses are correlated, and what each counts at most.
    Findings against a leak are never capped.
    """
    evidence = [
        Evidence(witness.name, finding.says, WEIGHTS[finding.fact].log_odds)
        for witness, finding in findings
    ]
    for source, cap in caps.items():
        weights = {
            item.witness: item.weight
            for (witness, _), item in zip(findings, evidence, strict=False)
            if witness.source == source
        }
        total = sum(weights.values())
        if total > cap:
            says = f"{', '.join(weights)} all ask the {source}: together they count {cap:g} at most"
            evidence.append(Evidence("correlation", says, cap - total))
    evidence += _together({finding.fact for _, finding in findings})
    evidence += _disagreement(findings)
    prior = "before any evidence: most of what is outstanding does not leak"
    evidence.append(Evidence("prior", prior, WEIGHTS[Fact.PRIOR].log_odds))
    return tuple(evidence)


def _together(facts: Set[Fact]) -> list[Evidence]:
    """What findings of several witnesses say together, beyond what each says."""
    evidence = []
    if Fact.REFERENCED in facts and not facts.isdisjoint(_REGISTERED):
        says = "a registry points to what is registered, so kmemleak's pointer is no surprise"
        evidence.append(
            Evidence("registered and pointed to", says, WEIGHTS[Fact.NAME_EXPLAINS].log_odds)
        )
    if facts >= {Fact.CONSTRUCTOR, Fact.EVERY_CYCLE_EQUAL}:
        says = "an object to give back, and as many kept in every cycle"
        evidence.append(
            Evidence("made each time", says, WEIGHTS[Fact.CONSTRUCTOR_EACH_TIME].log_odds)
        )
    return evidence


def _disagreement(findings: Sequence[tuple[Witness, Finding]]) -> list[Evidence]:
    """What is said where witnesses besides the ledger contradict one another. It has no weight:
    each has its own already."""
    there = [witness.name for witness, finding in findings if finding.fact in STILL_THERE]
    gone = [witness.name for witness, finding in findings if finding.fact in NOT_THERE]
    if not there or not gone:
        return []
    says = f"{', '.join(gone)} against {', '.join(there)}: not all of them can be right"
    return [Evidence("disagreement", says, 0.0)]


def score(evidence: Sequence[Evidence]) -> float:
    """The probability that the log-odds stand for, in per cent, to one decimal."""
    log_odds = sum(item.weight for item in evidence)
    return round(100 / (1 + math.exp(-log_odds)), 1)


def decide(percent: float, facts: frozenset[Fact], *, complete: bool) -> Verdict:
    """The verdict for a score, with what each verdict demands besides.

    ``complete`` is whether the trace lost nothing that may change a result.
    """
    reachable = Fact.REFERENCED in facts and facts.isdisjoint(_REGISTERED)
    undisputed = facts.isdisjoint(NOT_THERE) and not reachable
    independent = not facts.isdisjoint(_INDEPENDENT)
    repeated = any(facts >= both for both in _REPEATED) and Fact.OWN_REFERENCE not in facts
    if percent >= CONFIRMED_SCORE and undisputed and (independent or (complete and repeated)):
        return Verdict.CONFIRMED
    if percent >= LIKELY_SCORE:
        return Verdict.LIKELY
    # A name can be taken once: the second load of a module that keeps it fails, or goes without.
    set_up = not facts.isdisjoint(_SET_UP) and facts.isdisjoint(_FREED | {Fact.NAME_STAYS})
    if percent < RETAINED_BELOW_SCORE and set_up:
        return Verdict.RETAINED
    return Verdict.POSSIBLE
