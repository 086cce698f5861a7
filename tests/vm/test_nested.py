"""Leaks that hang on others, told by the pointers in their memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kleak.frames.names import base_name
from tests.support.guest import Guest, GuestJob

CYCLES = 3
JOBS = [
    GuestJob(
        "nested",
        ["kleak", "module", "{nested.ko}", "--cycles", str(CYCLES), "--json", "report.json"],
        timeout_s=600,
    )
]


@pytest.fixture
def sites(guest: Guest) -> list[dict[str, Any]]:
    result = guest["nested"]
    assert result.status == 1, result.stderr
    report = json.loads(result.file("report.json").read_text())
    assert report["trust"]["witnesses"]["pointers"] == "used"
    return report["sites"]


def of(function: str, sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [one for one in sites if base_name(one["frames"][0]["symbol"]) == function]
    return sorted(found, key=lambda one: one["frames"][0]["offset"])


def test_what_hangs_on_a_record_is_folded(sites: list[dict[str, Any]]) -> None:
    record, name, label, buffer, data = of("leak_records", sites)
    for one in (record, name, label, buffer, data):
        assert one["outstanding"]["count"] == 7 * CYCLES
    assert "parent" not in record
    for child, offset in ((name, 8), (label, 16), (buffer, 24)):
        assert child["parent"] == {
            "rank": record["rank"],
            "by": "pointers",
            "says": "older objects there point to each of the 21 that were checked at offset "
            f"{offset}",
        }
    assert data["parent"]["rank"] == buffer["rank"]
    assert data["parent"]["says"].endswith("at offset 8")


def test_what_only_looks_so_is_not(sites: list[dict[str, Any]]) -> None:
    twins = of("leak_twins", sites)
    assert [one["outstanding"]["count"] for one in twins] == [5 * CYCLES] * 2
    for twin in twins:
        assert "parent" not in twin


def test_a_child_stands_behind_its_parent(sites: list[dict[str, Any]]) -> None:
    ranks = [one["rank"] for one in sites]
    assert ranks == list(range(1, len(sites) + 1))
    record, *hanging = of("leak_records", sites)
    assert sorted(one["rank"] for one in hanging) == [record["rank"] + i for i in (1, 2, 3, 4)]
