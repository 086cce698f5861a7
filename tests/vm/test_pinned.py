"""Modules that cannot be unloaded: who holds them is said, and what leaks is found all the same."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from kleak.frames.names import base_name
from tests.support.guest import Guest, GuestJob, GuestResult

CYCLES = 3
POKE = "echo 1 >/sys/module/pinned/parameters/poke"
TIDY = "echo 1 >/sys/module/pinned/parameters/release; rmmod pinned_user; rmmod pinned"


def job(name: str, how: str, exercise: str, tidy: str = TIDY) -> GuestJob:
    kleak = (
        f"{sys.executable} -m kleak module {{pinned.ko}} how={how} --cycles {CYCLES} "
        f"--json report.json --exercise '{exercise}'"
    )
    return GuestJob(name, ["sh", "-c", f"{kleak}; status=$?; {tidy}; exit $status"], timeout_s=600)


JOBS = [
    job("pinned-forgotten", "forgotten", POKE),
    job("pinned-held", "held", "sleep 900 </dev/pinned &", "pkill sleep; sleep 1; rmmod pinned"),
    job("pinned-once", "once", POKE),
    job("pinned-used", "nothing", "insmod {pinned_user.ko}"),
    job("pinned-kept", "kept", POKE),
    job("pinned-nothing", "nothing", ": </dev/pinned"),
    GuestJob("pinned-unmet", ["kleak", "module", "{pinned_user.ko}"]),
]


def report_of(result: GuestResult) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(result.file("report.json").read_text())
    return report


def guilty(report: dict[str, Any]) -> list[str]:
    return [
        base_name(site["frames"][0]["symbol"])
        for site in report["sites"]
        if site["verdict"] in ("confirmed", "likely")
    ]


def test_a_leak_that_pins_its_module_grows_with_the_exercise(guest: Guest) -> None:
    result = guest["pinned-forgotten"]
    assert result.status == 1, result.stderr
    report = report_of(result)
    assert guilty(report) == ["forget_objects"]
    leak = report["sites"][0]
    assert leak["outstanding"]["count"] == 3 * CYCLES
    assert any(one["says"] == f"+3 in every one of {CYCLES} cycles" for one in leak["evidence"])
    assert "module pinned does not unload" in result.stderr
    assert "held by 1 reference" in result.stderr
    (said,) = [one for one in report["trust"]["notes"] if "cannot be unloaded" in one]
    assert "taken by hold+0x" in said or "taken by poke+0x" in said
    assert "[pinned] (1)" in said
    assert any("each later cycle repeats the exercise" in one for one in report["trust"]["notes"])
    assert not any("outlived the unload" in reason["says"] for reason in leak["evidence"])


@pytest.mark.parametrize("how", ["kept", "once"])
def test_a_reference_alone_accuses_no_memory(guest: Guest, how: str) -> None:
    result = guest[f"pinned-{how}"]
    assert result.status == 4, result.stderr
    assert guilty(report_of(result)) == []
    assert "held by 1 reference" in result.stderr


def test_processes_of_the_exercise_are_named_and_nothing_is_repeated(guest: Guest) -> None:
    result = guest["pinned-held"]
    assert result.status == 4, result.stderr
    report = report_of(result)
    assert guilty(report) == []
    assert report["cycles"] == 1
    assert any("of the exercise there still run: sleep " in one
               for one in report["trust"]["notes"])  # fmt: skip


def test_a_module_that_uses_it_is_named(guest: Guest) -> None:
    result = guest["pinned-used"]
    assert result.status in (1, 4), result.stderr
    assert "1 reference (1 of module pinned_user)" in result.stderr


def test_one_that_goes_is_as_before(guest: Guest) -> None:
    result = guest["pinned-nothing"]
    assert result.status == 0, result.stderr


def test_what_a_file_depends_on_is_named(guest: Guest) -> None:
    result = guest["pinned-unmet"]
    assert result.status == 4
    assert "pinned_user.ko needs modules that are not loaded: pinned;" in result.stderr
