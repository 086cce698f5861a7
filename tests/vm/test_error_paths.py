"""Error paths on real kernels: what leaks when a call fails is found, and nothing else is."""

from __future__ import annotations

import json

import pytest

from tests.support.error_paths import LEAKS, tried
from tests.support.guest import Guest, GuestJob

KERNELS = ("6.12",)
GROUPS = ("ladders",)  # 36 failures, 12 of which leak; each other group takes minutes more

JOBS = [
    GuestJob(
        f"errorpaths-{group}",
        ["kleak", "module", "{errorpaths.ko}", f"group={group}", "--fail-calls",
         "--json", "report.json"],
        timeout_s=2400.0,
    )
    for group in GROUPS
]  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_every_failure_is_told_right(guest: Guest, group: str) -> None:
    result = guest[f"errorpaths-{group}"]
    file = result.file("report.json")
    assert file.exists(), result.stderr
    failures = tried(json.loads(file.read_text()))
    assert len(failures) > 10
    assert [one for one in failures if one.leaks != one.found] == []
    assert any(one.leaks for one in failures)
    assert not all(one.leaks for one in failures)
    assert result.status == 1


def test_the_truth_names_at_least_25_error_paths() -> None:
    assert len(LEAKS) >= 25
