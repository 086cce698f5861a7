"""What is known of tests/modules/errorpaths: which failure leaks, by caller and call.

A call is told by its place among those in its caller that can fail, by their offsets.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

_LADDERS = (
    "kmalloc", "kzalloc", "large", "kstrdup", "kasprintf", "kmemdup", "kvmalloc", "vmalloc",
    "vzalloc", "percpu", "pages", "workqueue",
)  # fmt: skip

LEAKS: dict[tuple[str, int], int] = {
    **{(f"bad_{name}_up", 2): 1 for name in _LADDERS},
    ("bad_loop_up", 0): 2,
    ("bad_off_by_one_up", 0): 2,
    ("bad_pairs_up", 1): 1,
    ("bad_areas_up", 0): 2,
    ("bad_tolerant_up", 1): 1,
    ("bad_realloc_up", 1): 1,
    ("bad_retry_up", 1): 1,
    ("bad_nested_up", 2): 1,
    ("bad_misc_up", 1): 1,
    ("bad_chrdev_up", 1): 1,
    ("bad_ida_up", 1): 1,
    ("bad_managed_up", 2): 1,
    ("help", 1): 1,
    ("bad_debugfs_up", 1): 1,
}
"""Caller and call (0 is the first), and from which time of the call on its failure leaks."""


@dataclass(frozen=True)
class Tried:
    """A failure of a report: whether it leaks in fact, and whether the report says so."""

    when: str
    leaks: bool
    found: bool
    outcome: str


def tried(report: dict[str, Any]) -> list[Tried]:
    """All failures of a report in JSON."""
    paths = report["error_paths"]
    calls = {one["call"]["number"]: one["call"] for one in paths["failures"]}
    calls |= {call["number"]: call for call in paths["not_reached"]}
    order: defaultdict[str, list[int]] = defaultdict(list)
    for call in sorted(calls.values(), key=lambda call: call["place"]["offset"]):
        order[call["place"]["symbol"]].append(call["number"])
    sure = {
        site["injected"]["failure"]
        for site in report["sites"]
        if "injected" in site and site["verdict"] in ("likely", "confirmed")
    }
    found = []
    for one in paths["failures"]:
        caller = one["call"]["place"]["symbol"]
        least = LEAKS.get((caller, order[caller].index(one["call"]["number"])))
        leaks = least is not None and one["nth"] >= least
        found.append(Tried(one["when"], leaks, one["number"] in sure, one["outcome"]))
    return found
