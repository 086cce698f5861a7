"""The rule: prior and weights add up to log-odds, these give the score, and gates the verdict.

The same for a capture and for snapshots: only who collects the findings differs.
docs/verdicts.md tells it to the user. The sum of the weights in the evidence of a site is its
log-odds, the prior and the correction for correlated findings included, so that every score
can be worked out again from the report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from kleak.analysis.correlations import (
    A_HOLDER,
    CORRELATIONS,
    KINDS,
    NO_HOLDER,
    NOT_THERE,
    STILL_THERE,
    Correlation,
)
from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.report import Evidence, JudgedSite, Verdict

CONFIRMED_SCORE = 95.0
LIKELY_SCORE = 75.0
RETAINED_BELOW_SCORE = 50.0

_HELD_ON_PURPOSE = frozenset(
    {
        Fact.FIRST_CYCLE,
        Fact.PLATEAU,
        Fact.PAGES_HELD,
        Fact.FIRST_STEP,
        Fact.TASK_STACK,
        Fact.MODULE_MEMORY,
        Fact.RECLAIMABLE,
    }
)
_INDEPENDENT = frozenset(
    {
        Fact.REGION_THERE,
        Fact.UNREFERENCED,
        Fact.UNHELD,
        Fact.TAG_LEFT,
        Fact.CACHE_LEFT,
        Fact.NAME_STAYS,
    }
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
_HOLDERS = frozenset({Fact.REFERENCED, Fact.HELD, Fact.HELD_IN_USE})
_REGISTERED = frozenset({Fact.NAME_STAYS, Fact.DEVICE_STAYS})
_REPEATED = (
    frozenset({Fact.DIRECT, Fact.EVERY_CYCLE}),
    frozenset({Fact.DIRECT, Fact.EVERY_CYCLE_EQUAL}),
    frozenset({Fact.CONSTRUCTOR, Fact.EVERY_CYCLE_EQUAL}),
)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What the findings about one site come to."""

    verdict: Verdict
    score: float
    evidence: tuple[Evidence, ...]


def conclude(findings: Sequence[Finding], *, complete: bool) -> Conclusion:
    """Weigh ``findings`` about one site. ``complete``: nothing was lost that may change them."""
    evidence = weigh(findings, complete=complete)
    percent = score(evidence)
    facts = frozenset(finding.fact for finding in findings)
    return Conclusion(decide(percent, facts, complete=complete), percent, evidence)


def weigh(findings: Sequence[Finding], *, complete: bool) -> tuple[Evidence, ...]:
    """The findings with their weights, in the order given, then corrections and prior.

    Findings against a leak are never cut.
    """
    evidence = [Evidence(one.witness, one.says, one.fact.log_odds) for one in findings]
    counting = list(findings)
    for correlation in CORRELATIONS:
        same = [one for one in counting if one.fact in correlation.facts]
        correction = _correct(correlation, same, complete=complete)
        if correction is None:
            continue
        evidence.append(correction)
        if correlation.cap is None:
            strongest = max(same, key=lambda one: one.fact.log_odds)
            counting = [one for one in counting if one is strongest or one not in same]
    facts = {finding.fact for finding in findings}
    evidence += _together(facts)
    evidence += _same_question(findings)
    evidence += _disagreement(findings)
    prior = "before any evidence: most of what is outstanding does not leak"
    evidence.append(Evidence("prior", prior, Fact.PRIOR.log_odds))
    return tuple(evidence)


def _correct(
    correlation: Correlation, same: Sequence[Finding], *, complete: bool
) -> Evidence | None:
    """What takes off that findings tell the same thing; None if it takes off nothing."""
    total = sum(one.fact.log_odds for one in same)
    if correlation.cap is None:
        if len(same) < 2:
            return None
        says = (
            f"{len(same)} findings on {correlation.name} tell the same: only the strongest counts"
        )
        return Evidence("correlation", says, max(one.fact.log_odds for one in same) - total)
    cap = correlation.cap
    if not complete and correlation.cap_lossy is not None:
        cap = correlation.cap_lossy
    if total <= cap:
        return None
    names = ", ".join(dict.fromkeys(one.witness for one in same))
    says = f"{names} all ask the {correlation.name}: together they count {cap:g} at most"
    return Evidence("correlation", says, cap - total)


def _together(facts: Set[Fact]) -> list[Evidence]:
    """What findings of several witnesses say together, beyond what each says."""
    evidence = []
    pointed_to = Fact.REFERENCED in facts or Fact.HELD in facts
    if pointed_to and not facts.isdisjoint(_REGISTERED):
        says = "a registry points to what is registered, so a pointer is no surprise"
        evidence.append(Evidence("registered and pointed to", says, Fact.NAME_EXPLAINS.log_odds))
    if facts >= {Fact.CONSTRUCTOR, Fact.EVERY_CYCLE_EQUAL}:
        says = "an object to give back, and as many kept in every cycle"
        evidence.append(Evidence("made each time", says, Fact.CONSTRUCTOR_EACH_TIME.log_odds))
    return evidence


def _same_question(findings: Sequence[Finding]) -> list[Evidence]:
    """What takes off that kmemleak and kleak's own search answer one question."""
    without = [one for one in findings if one.fact in NO_HOLDER]
    with_one = [one for one in findings if one.fact in A_HOLDER]
    if without and with_one:
        says = "kmemleak and the search of memory contradict each other: neither counts"
        weight = -sum(one.fact.log_odds for one in (*without, *with_one))
        return [Evidence("one question", says, weight)]
    for same in (without, with_one):
        if len(same) > 1:
            says = "kmemleak and the search of memory ask the same: the stronger answer counts"
            weaker = min((one.fact.log_odds for one in same), key=abs)
            return [Evidence("one question", says, -weaker)]
    return []


def _disagreement(findings: Sequence[Finding]) -> list[Evidence]:
    """What is said where witnesses besides the ledger contradict one another. It has no weight:
    each has its own already."""
    there = [finding.witness for finding in findings if finding.fact in STILL_THERE]
    gone = [finding.witness for finding in findings if finding.fact in NOT_THERE]
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
    reachable = not facts.isdisjoint(_HOLDERS) and facts.isdisjoint(_REGISTERED)
    undisputed = facts.isdisjoint(NOT_THERE) and not reachable
    independent = (
        not facts.isdisjoint(_INDEPENDENT)
        or sum(not facts.isdisjoint(kind.facts) for kind in KINDS) >= 2
    )
    repeated = any(facts >= both for both in _REPEATED) and Fact.OWN_REFERENCE not in facts
    if percent >= CONFIRMED_SCORE and undisputed and (independent or (complete and repeated)):
        return Verdict.CONFIRMED
    if percent >= LIKELY_SCORE:
        return Verdict.LIKELY
    # A name can be taken once: the second load of a module that keeps it fails, or goes without.
    held = not facts.isdisjoint(_HELD_ON_PURPOSE) and facts.isdisjoint(_FREED | {Fact.NAME_STAYS})
    if percent < RETAINED_BELOW_SCORE and held:
        return Verdict.RETAINED
    return Verdict.POSSIBLE


def ranking(site: JudgedSite) -> tuple[object, ...]:
    """What to sort sites by: the surest first, then the largest, then by name."""
    return (
        -site.verdict,
        -site.score,
        -site.outstanding.size_bytes,
        -site.outstanding.count,
        tuple((frame.module or "", frame.symbol or "", frame.offset) for frame in site.frames),
        site.allocator,
    )
