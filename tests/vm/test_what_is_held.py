"""What nothing points to, of a module that stays loaded: tests/modules/held holds the truth.

A function of the module is a site, and the first word of its name says whether what it allocates is
kept, lost, or kept in a code that no search can read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.guest import Guest, GuestJob

ROUNDS = 6
ACT = f"echo {ROUNDS} >/sys/module/held/parameters/act; sleep 1"
RUN = ["kleak", "run", "--module", "held", "--pointer-seconds", "300", "--json", "report.json"]
JOBS = [
    GuestJob("held", ["insmod", "{held.ko}"]),
    GuestJob("reachability", [*RUN, "--", "sh", "-c", ACT], timeout_s=900),
    GuestJob("no reachability", [*RUN, "--no-pointers", "--", "sh", "-c", ACT], timeout_s=600),
]
LEAST_TOLD = 0.95
MOST_WAYS_CODED = 4


def own_sites(guest: Guest, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sites that the module allocates at by its own call, by the function."""
    report = json.loads(guest[job].file("report.json").read_text())
    for site in [*report["sites"], *report.get("not_shown", [])]:
        first = site["frames"][0]
        if first["module"] == "held" and first["symbol"].startswith(("keep_", "lose_", "coded_")):
            yield first["symbol"], site


def is_accused(site: dict[str, Any]) -> bool:
    return site["verdict"] in ("likely", "confirmed")


def test_what_is_lost_is_told_and_what_is_kept_is_not_accused(guest: Guest) -> None:
    assert guest["held"].status == 0, guest["held"].stderr
    assert guest["reachability"].status == 1, guest["reachability"].stderr
    sites = list(own_sites(guest, "reachability"))
    kept = [(name, site) for name, site in sites if name.startswith("keep_")]
    lost = [(name, site) for name, site in sites if name.startswith("lose_")]
    assert len(kept) >= 28
    assert len(lost) >= 30
    assert [name for name, site in kept if is_accused(site)] == []
    silent = [name for name, site in lost if not is_accused(site)]
    assert len(silent) <= (1 - LEAST_TOLD) * len(lost), silent


def test_who_holds_is_named(guest: Guest) -> None:
    says = {
        name: item["says"]
        for name, site in own_sites(guest, "reachability")
        for item in site["evidence"]
        if item["witness"] == "reachability"
    }
    assert "held by static_slots" in says["keep_in_module_data"]
    assert "stack of task held_sleeper" in says["keep_on_stack"]
    assert "maple_node+" in says["keep_in_maple"] or "maple" in says["keep_in_maple"]
    assert "of keep_in_list, outstanding too" in says["keep_child"]


def test_without_the_search_nothing_tells_them_apart(guest: Guest) -> None:
    scores = {
        name.split("_")[0]: site["score"]
        for name, site in own_sites(guest, "no reachability")
        if site["allocator"] == "kmalloc" and site["outstanding"]["count"] == ROUNDS
    }
    assert scores["keep"] == pytest.approx(scores["lose"])
