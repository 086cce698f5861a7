"""What points to the objects of a site: the witness, and one question with two answers."""

from dataclasses import replace

import pytest

from kleak.analysis.findings import Finding
from kleak.analysis.judge import judge
from kleak.analysis.redact import redact_report, redact_session
from kleak.analysis.verdict import conclude
from kleak.analysis.weights import Fact
from kleak.analysis.witnesses import reachability
from kleak.model.report import Verdict
from kleak.model.session import PointersTo, Reachability, Target
from tests.support.samples import session, site

SYMBOLS = Target("symbols", "[leaky]")


def said(pointers, *, target=SYMBOLS):
    one = replace(site([6]), pointers=pointers)
    return reachability.judge(one, session(one, target=target))


@pytest.mark.parametrize(
    ("pointers", "fact"),
    [
        (None, None),
        (PointersTo(6, 6, 0), Fact.UNHELD),
        (PointersTo(3, 3, 0), Fact.UNHELD),
        (PointersTo(2, 2, 0), Fact.PARTLY_HELD),  # two may be an accident
        (PointersTo(10, 9, 1, (("slots", 1),)), Fact.UNHELD),
        (PointersTo(10, 8, 2, (("slots", 2),)), Fact.PARTLY_HELD),
        (PointersTo(10, 0, 10, (("slots", 10),)), Fact.HELD_IN_USE),
        (PointersTo(1, 0, 1, (("slots", 1),)), Fact.HELD_IN_USE),
        (PointersTo(10, 0, 9, (("slots", 9),)), Fact.PARTLY_HELD),  # one is doubtful
        (PointersTo(10, 0, 0), Fact.PARTLY_HELD),
    ],
)
def test_a_site_is_judged_as_a_whole(pointers, fact):
    finding = said(pointers)
    assert (finding and finding.fact) == fact


def test_after_an_unload_a_holder_is_no_acquittal():
    held = PointersTo(6, 0, 6, (("maple_node+16", 6),))
    assert said(held, target=Target("module", "leaky")).fact is Fact.HELD


def test_the_sentence_names_the_holders_with_their_numbers():
    finding = said(PointersTo(9, 0, 9, (("a+1", 4), ("b+2", 3), ("c+3", 1), ("d+4", 1))))
    assert finding.says == (
        "something points to all 9 that were searched for: held by a+1 (4), b+2 (3), c+3 (1) and 1 "
        "more"
    )


def run_verdict(pointers, kept):
    one = replace(site(kept), pointers=pointers)
    (judged,) = judge(session(one, target=Target("symbols", "[leaky]"))).sites
    return judged.verdict


def test_one_run_tells_what_is_lost_from_what_is_kept():
    held = PointersTo(6, 0, 6, (("slots [leaky]", 6),))
    assert run_verdict(PointersTo(6, 6, 0), [6]) is Verdict.LIKELY
    assert run_verdict(held, [6]) is Verdict.POSSIBLE
    assert run_verdict(held, [6, 6, 6]) is Verdict.POSSIBLE
    assert run_verdict(PointersTo(6, 6, 0), [6, 6, 6]) is Verdict.CONFIRMED


# --- kmemleak asks the same -----------------------------------------------------------------------


def weights(*facts):
    findings = [Finding("test", fact, "says") for fact in facts]
    evidence = conclude(findings, complete=True).evidence
    return sum(one.weight for one in evidence) - Fact.PRIOR.log_odds, evidence


def test_the_same_answer_counts_once():
    for facts in ((Fact.UNREFERENCED, Fact.UNHELD), (Fact.REFERENCED, Fact.HELD_IN_USE)):
        total, _ = weights(*facts)
        assert total == max((one.log_odds for one in facts), key=abs)


@pytest.mark.parametrize(
    "facts",
    [
        (Fact.UNREFERENCED, Fact.HELD),
        (Fact.UNREFERENCED, Fact.HELD_IN_USE),
        (Fact.REFERENCED, Fact.UNHELD),
        (Fact.REFERENCED_LARGE, Fact.UNHELD),
    ],
)
def test_where_they_contradict_each_other_neither_counts_and_it_is_told(facts):
    total, evidence = weights(*facts)
    assert total == pytest.approx(0)
    assert any("contradict" in one.says for one in evidence)


def test_a_contradiction_confirms_nothing():
    grown = replace(
        site([6, 6, 6]),
        pointers=PointersTo(18, 0, 18, (("slots", 18),)),
        reachability=Reachability(unreferenced=18),
    )
    (judged,) = judge(session(grown)).sites
    assert judged.verdict is Verdict.LIKELY


def test_no_name_of_a_task_leaves_with_a_redacted_report():
    held = PointersTo(6, 0, 6, (("stack of task my (secret) job", 4), ("slots", 2)))
    traced = session(replace(site([6]), pointers=held), target=SYMBOLS)
    (kept,) = redact_session(traced).sites
    assert kept.pointers.holders == (("stack of task", 4), ("slots", 2))
    (judged,) = redact_report(judge(traced)).sites
    (text,) = [one.says for one in judged.evidence if one.witness == reachability.NAME]
    assert "secret" not in text
    assert "stack of task (4), slots (2)" in text
