"""A sample of the corpus on real kernels; ``make accuracy`` runs all of it."""

from __future__ import annotations

import json

import pytest

from bench.accuracy.score import Score, score
from tests.build_modules import TOP
from tests.corpus import CASES
from tests.guest import Guest, GuestJob

LEAKING = ("bulk", "bulk_freed", "krealloc_in_place", "pages_exact", "split_page", "pages_bulk",
           "percpu", "dma", "timer")  # fmt: skip
INNOCENT = ("innocent_kfree_rcu", "innocent_bulk", "innocent_pieces", "innocent_page_cache")

JOBS = [
    GuestJob(
        "corpus",
        ["python", "-m", "bench.accuracy.guest", ".", "{corpus.ko}", "{corpus_keeper.ko}",
         *LEAKING, *INNOCENT],
        timeout_s=1200.0,
        environment={"PYTHONPATH": str(TOP)},
    )
]  # fmt: skip


def scored(guest: Guest, name: str) -> Score:
    result = guest["corpus"]
    record = result.file(f"{name}.json")
    assert record.exists(), result.stderr
    (case,) = [case for case in CASES if case.name == name]
    return score(case, json.loads(record.read_text()))


@pytest.mark.parametrize("name", LEAKING)
def test_leaks_are_found_first_and_exactly(guest: Guest, name: str) -> None:
    one = scored(guest, name)
    assert one.found, one
    assert one.rank == 1
    assert one.exact
    assert one.reported == one.right


@pytest.mark.parametrize("name", INNOCENT)
def test_innocents_are_not_accused(guest: Guest, name: str) -> None:
    one = scored(guest, name)
    assert one.failure is None
    assert one.reported == 0, one.first_wrong


def test_every_event_has_a_program(guest: Guest) -> None:
    """Nothing falls back to a probe or is left out on the kernels that are promised."""
    notes = json.loads(guest["corpus"].file("notes.json").read_text())
    assert notes["notes"] == []
    assert set(notes["attached"].values()) == {"raw tracepoint", "fentry", "fexit"}
    assert notes["attached"]["kmem_cache_free_bulk"] == "fentry"
    assert notes["attached"]["alloc_pages_bulk"] == "fexit"
