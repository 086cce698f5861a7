"""Leaks of the corpus on the kernel that has every witness: each says what it knows of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.accuracy.score import holds, score
from tests.support.build_modules import TOP
from tests.support.corpus import CASES, Case
from tests.support.guest import Guest, GuestJob

KERNELS = ("dev",)
# Of each case, a witness that nobody but this kernel has, and a part of what it says.
SAID = {
    "kmalloc": {
        "allocation tags": "the kernel log has 1152 B of slab.c:",
        "kmemleak": "found no pointer to",
    },
    "alloc_pages": {"page holders": "page_owner names the task that allocated them"},
    "netdev": {"allocinfo": "/proc/allocinfo has +12 at dev.c:"},
}
INNOCENT = "innocent_kfree_rcu"

JOBS = [
    GuestJob(
        "corpus-witnesses",
        ["python", "-m", "bench.accuracy.guest", ".", "{corpus.ko}", "{corpus_keeper.ko}", *SAID,
         INNOCENT],
        timeout_s=1200.0,
        environment={"PYTHONPATH": str(TOP)},
    )
]  # fmt: skip


def case_of(name: str) -> Case:
    (case,) = [case for case in CASES if case.name == name]
    return case


def record(guest: Guest, name: str) -> Any:
    result = guest["corpus-witnesses"]
    file = result.file(f"{name}.json")
    assert file.exists(), result.stderr
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", SAID)
def test_each_witness_says_what_it_knows(guest: Guest, name: str) -> None:
    leak = case_of(name).leak
    assert leak is not None
    report = record(guest, name)["report"]
    said = {
        item["witness"]: item["says"]
        for site in report["sites"]
        if holds(site, leak.function) and site["allocator"] == leak.allocator
        for item in site["evidence"]
        if item["witness"] in SAID[name]
    }
    assert said.keys() == SAID[name].keys()
    for witness, part in SAID[name].items():
        assert part in said[witness]


@pytest.mark.parametrize("name", SAID)
def test_they_make_it_confirmed(guest: Guest, name: str) -> None:
    one = score(case_of(name), record(guest, name))
    assert (one.verdict, one.rank, one.exact) == ("confirmed", 1, True), one
    assert one.reported == one.right


def test_they_accuse_nobody(guest: Guest) -> None:
    report = record(guest, INNOCENT)["report"]
    assert all(site["verdict"] in ("possible", "retained") for site in report["sites"])
