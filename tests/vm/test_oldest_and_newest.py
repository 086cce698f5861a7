"""The oldest and the newest kernel that kleak is promised on: a sample that covers every hook."""

from __future__ import annotations

import json

import pytest

from bench.accuracy.__main__ import has_case
from kleak.model.session import NOT_SEEN
from tests.support.build_modules import TOP
from tests.support.corpus import CASES
from tests.support.guest import Guest, GuestJob
from tests.vm.test_corpus import scored

KERNELS = ("5.10", "7.3")
LEAKING = ("kmalloc_node", "cache_merged", "bulk", "bulk_freed", "krealloc_in_place",
           "kmalloc_nolock", "vmalloc", "pages_exact", "pages_bulk", "percpu", "dma",
           "dma_pool")  # fmt: skip
INNOCENT = ("innocent_kfree_rcu", "innocent_bulk", "innocent_nolock", "innocent_kfree_rcu_nolock",
            "innocent_skb", "innocent_interrupts", "innocent_page_cache")  # fmt: skip

JOBS = [
    GuestJob("self-test", ["kleak", "doctor", "--json"]),
    GuestJob(
        "corpus",
        ["python", "-m", "bench.accuracy.guest", ".", "{corpus.ko}", "{corpus_keeper.ko}",
         *LEAKING, *INNOCENT],
        timeout_s=1200.0,
        environment={"PYTHONPATH": str(TOP)},
    ),
]  # fmt: skip


@pytest.fixture
def case(guest: Guest, request: pytest.FixtureRequest) -> str:
    """The name of a case that this kernel has."""
    name: str = request.param
    (found,) = [one for one in CASES if one.name == name]
    if not has_case(guest.modules["corpus.ko"].read_bytes(), found):
        pytest.skip("this kernel has no such call")
    return name


@pytest.mark.parametrize("case", LEAKING, indirect=True)
def test_leaks_are_found_first_and_exactly(guest: Guest, case: str) -> None:
    one = scored(guest, case)
    assert one.found, one
    assert one.rank == 1
    assert one.exact
    assert one.reported == one.right


@pytest.mark.parametrize("case", INNOCENT, indirect=True)
def test_innocents_are_not_accused(guest: Guest, case: str) -> None:
    one = scored(guest, case)
    assert one.failure is None
    assert one.reported == 0, one.first_wrong


def test_every_event_has_a_program(guest: Guest) -> None:
    notes = json.loads(guest["corpus"].file("notes.json").read_text())
    assert notes["notes"] == []


def test_the_self_test_sees_all_that_it_causes(guest: Guest) -> None:
    result = guest["self-test"]
    rows = json.loads(result.stdout)["findings"]
    said = {row["name"]: row["found"] for row in rows if row["area"] == "self-test"}
    assert said, result.stderr
    assert [kind for kind in said if said[kind].startswith(NOT_SEEN)] == []
