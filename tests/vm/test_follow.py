"""Modules that somebody else loads and unloads, as fast as a shell can: exact in each cycle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kleak.frames.names import base_name
from tests.support.guest import Guest, GuestJob

FOLLOWED = str(Path(__file__).with_name("followed_kleak.py"))
NEWS = str(Path(__file__).with_name("module_news.py"))
CYCLES = 7
ROUNDS = 3

JOBS = [
    GuestJob(
        "follow",
        [
            "python",
            FOLLOWED,
            # Not a moment between the cycles: kleak cannot have looked at each.
            f"for i in $(seq {CYCLES}); do insmod {{leaky.ko}}; rmmod leaky; done",
            "wait",
            "{leaky.ko}",
            *("--follow", "--cycles", str(CYCLES), "--json", "report.json"),
        ],
    ),
    GuestJob(
        "follow-two",
        [
            "python",
            FOLLOWED,
            f"for i in $(seq {ROUNDS}); do insmod {{followed_lib.ko}};"
            " insmod {followed_user.ko}; rmmod followed_user;"
            " insmod {followed_user.ko}; rmmod followed_user; rmmod followed_lib; done;"
            " insmod {followed_lib.ko}",
            "interrupt",
            "{followed_lib.ko}",
            *("--module", "{followed_user.ko}", "--follow", "--json", "report.json"),
            *("-o", "session.kleak"),
        ],
        spoils=True,
    ),
    GuestJob(
        "follow-kernel",
        [
            "python",
            FOLLOWED,
            # The corpus may have run in this guest before, and left it.
            "grep -q ^corpus_keeper /proc/modules || insmod {corpus_keeper.ko} &&"
            f" for i in $(seq {ROUNDS}); do"
            " insmod {corpus.ko} case=proc_entry; rmmod corpus;"
            " insmod {corpus.ko} case=cache_left_behind; rmmod corpus; done",
            "wait",
            "{corpus.ko}",
            *("--follow", "--cycles", str(2 * ROUNDS), "--json", "report.json"),
        ],
        spoils=True,
    ),
    GuestJob("module-news", ["python", NEWS], timeout_s=120.0),
]


def outcome(guest: Guest, job: str) -> dict[str, Any]:
    result = guest[job]
    assert result.status == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["shell"] == [0, ""]
    return found


def report(guest: Guest, job: str) -> dict[str, Any]:
    found = outcome(guest, job)
    assert found["status"] == 1, found["stderr"]
    document: dict[str, Any] = json.loads(guest[job].file("report.json").read_text())
    assert document["trust"]["complete"], document["trust"]
    return document


def counts(site: dict[str, Any]) -> list[int]:
    return [tally["count"] for tally in site["per_cycle"]]


def functions(site: dict[str, Any]) -> list[str]:
    """The modules' functions on the stack of a site, innermost first."""
    return [
        base_name(frame["symbol"] or "") for frame in site["frames"] if frame["module"] is not None
    ]


def test_every_load_of_somebody_else_is_a_cycle_of_its_own(guest: Guest) -> None:
    document = report(guest, "follow")
    assert document["cycles"] == CYCLES
    assert not any("loaded already" in note for note in document["trust"]["notes"])
    found = {functions(site)[0]: counts(site) for site in document["sites"]}
    assert found == {
        "forget_rings": [2] * CYCLES,
        "lose_sessions": [5] * CYCLES,
        "forget_buffers": [3] * CYCLES,
        "leaky_init": [1] * CYCLES,
    }
    assert {site["verdict"] for site in document["sites"]} == {"confirmed"}


def test_a_leak_is_charged_to_the_innermost_module(guest: Guest) -> None:
    document = report(guest, "follow-two")
    found = {tuple(functions(site)): counts(site) for site in document["sites"]}
    assert found == {
        ("leak_own", "followed_user_init"): [7] * 2 * ROUNDS,
        ("leak_one", "followed_lib_take", "followed_lib_init"): [5] * ROUNDS,
        # In each load of the library its user came twice.
        ("leak_one", "followed_lib_take", "leak_through_lib", "followed_user_init"): [6] * ROUNDS,
    }
    assert document["target"]["name"] == "followed_lib,followed_user"
    assert {site["verdict"] for site in document["sites"]} == {"confirmed"}


def test_a_shared_leak_names_both_modules(guest: Guest) -> None:
    document = report(guest, "follow-two")
    for site in document["sites"]:
        (origin,) = (item["says"] for item in site["evidence"] if item["witness"] == "origin")
        shared = "leak_through_lib" in functions(site)
        assert ("shared: called by followed_user" in origin) == shared
        charged = "followed_user" if functions(site)[0] == "leak_own" else "followed_lib"
        assert f"by a call in {charged} itself" in origin


def test_what_a_loaded_module_holds_is_no_leak(guest: Guest) -> None:
    found = outcome(guest, "follow-two")
    notes = report(guest, "follow-two")["trust"]["notes"]
    assert "left out: what modules held that were still loaded, 6 objects from 2 stacks" in notes
    assert f"a module's cycles are its own loads: followed_lib {ROUNDS}, followed_user 6" in notes
    assert "followed_lib " in found["loaded"]  # it is not kleak's to unload


def test_the_kernel_is_asked_before_and_after(guest: Guest) -> None:
    document = report(guest, "follow-kernel")
    said = {
        item["witness"]: (functions(site)[0], item["says"])
        for site in document["sites"]
        for item in site["evidence"]
        if item["witness"] in ("kernel log", "registered names")
    }
    function, says = said["registered names"]
    assert function == "leak_proc_entry"
    assert "/proc/corpus_" in says
    function, says = said["kernel log"]
    assert function == "leak_kmem_cache"
    assert f"{5 * ROUNDS} objects left in corpus_" in says
    witnesses = document["trust"]["witnesses"]
    assert {witnesses[name] for name in ("kernel log", "registered names", "slabinfo")} == {"used"}
    assert witnesses["meminfo"] == "absent: not read at a quiet moment after each cycle"


def test_nothing_is_compared_with_a_time_when_a_module_was_there(guest: Guest) -> None:
    witnesses = report(guest, "follow-two")["trust"]["witnesses"]
    assert witnesses["kernel log"] == "used"
    for name in ("registered names", "slabinfo"):
        assert witnesses[name] == "absent: followed_lib was loaded after the cycles"


@pytest.mark.parametrize("job", ["follow", "follow-two"])
def test_ready_is_said_once(guest: Guest, job: str) -> None:
    lines = outcome(guest, job)["stderr"].splitlines()
    assert sum(line.startswith("following ") for line in lines) == 1


def test_uevents_tell_of_modules(guest: Guest) -> None:
    result = guest["module-news"]
    assert (result.status, result.stdout) == (0, "heard of modprobe\nheard of rmmod\n")
