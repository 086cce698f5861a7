"""A sample of the corpus on real kernels; ``make accuracy`` runs all of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.accuracy.score import Score, score
from tests.support.build_modules import TOP
from tests.support.corpus import CASES, PAGE
from tests.support.guest import Guest, GuestJob

LEAKING = ("bulk", "bulk_freed", "krealloc_in_place", "pages_exact", "split_page", "pages_bulk",
           "percpu", "dma", "timer", "vzalloc_large")  # fmt: skip
# Leaks that only the kernel's log and its registries tell from what a good module leaves for a
# while: which witness does, and a part of what it says.
TOLD_BY_THE_KERNEL = {
    "cache_left_behind": ("kernel log", "15 objects left in corpus_"),
    "cache_itself": ("registered names", "/sys/kernel/slab/"),
    "proc_entry": ("registered names", "/proc/corpus_"),
    "debugfs_entry": ("registered names", "/sys/kernel/debug/corpus_"),
}
INNOCENT = ("innocent_kfree_rcu", "innocent_bulk", "innocent_pieces", "innocent_page_cache")

JOBS = [
    GuestJob(
        "corpus",
        ["python", "-m", "bench.accuracy.guest", ".", "{corpus.ko}", "{corpus_keeper.ko}",
         *LEAKING, *TOLD_BY_THE_KERNEL, *INNOCENT],
        timeout_s=1200.0,
        environment={"PYTHONPATH": str(TOP)},
    )
]  # fmt: skip


def record(guest: Guest, name: str) -> Any:
    result = guest["corpus"]
    file = result.file(f"{name}.json")
    assert file.exists(), result.stderr
    return json.loads(file.read_text())


def reported(guest: Guest, name: str) -> Any:
    return record(guest, name)["report"]


def scored(guest: Guest, name: str) -> Score:
    (case,) = [case for case in CASES if case.name == name]
    return score(case, record(guest, name))


@pytest.mark.parametrize("name", [*LEAKING, *TOLD_BY_THE_KERNEL])
def test_leaks_are_found_first_and_exactly(guest: Guest, name: str) -> None:
    one = scored(guest, name)
    assert one.found, one
    assert one.rank == 1
    assert one.exact
    assert one.reported == one.right


@pytest.mark.parametrize("name", TOLD_BY_THE_KERNEL)
def test_what_the_kernel_says_decides(guest: Guest, name: str) -> None:
    witness, says = TOLD_BY_THE_KERNEL[name]
    best = reported(guest, name)["sites"][0]
    assert any(item["witness"] == witness and says in item["says"] for item in best["evidence"])


def test_growth_of_memory_is_explained(guest: Guest) -> None:
    """2 areas of 3 MB a load; from the end of the first load to that of the third."""
    memory = reported(guest, "vzalloc_large")["memory"]
    (vmalloc,) = [one for one in memory["classes"] if one["name"] == "VmallocUsed"]
    # The array of an area's 768 page pointers takes two pages, which are an area too.
    assert vmalloc["held_bytes"] == 2 * 2 * ((3 << 20) + 2 * PAGE)
    assert vmalloc["grew"]
    assert not vmalloc["unexplained"]
    assert 90 <= memory["explained_percent"] <= 100


@pytest.mark.parametrize("name", INNOCENT)
def test_innocents_leave_nothing_unexplained(guest: Guest, name: str) -> None:
    assert not any(one["unexplained"] for one in reported(guest, name)["memory"]["classes"])


@pytest.mark.parametrize("name", INNOCENT)
def test_innocents_are_not_accused(guest: Guest, name: str) -> None:
    one = scored(guest, name)
    assert one.failure is None
    assert one.reported == 0, one.first_wrong


def test_every_event_has_a_program(guest: Guest) -> None:
    """Nothing falls back to a probe or is left out on the kernels that are promised."""
    notes = json.loads(guest["corpus"].file("notes.json").read_text())
    assert notes["notes"] == []
    ways = set(notes["attached"].values()) - {"typed raw tracepoint"}
    assert ways == {"raw tracepoint", "fentry", "fexit"}
    assert notes["attached"]["kmem_cache_free_bulk"] == "fentry"
    assert notes["attached"]["alloc_pages_bulk"] == "fexit"
