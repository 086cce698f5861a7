"""kmemleak as a witness, on the kernel that has it: both of its answers, and its settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kleak.frames.names import base_name
from kleak.model.session import Session
from kleak.store.reader import read_session
from tests.support.guest import Guest, GuestJob

KERNELS = ("dev",)
CYCLES = 3
REPORT = ["--cycles", str(CYCLES), "--json", "report.json", "-o", "session.kleak"]
SCAN_THREADS = "grep -lx kmemleak /proc/[0-9]*/comm | wc -l"

JOBS = [
    GuestJob("scans before", ["sh", "-c", SCAN_THREADS]),
    GuestJob("holder", ["insmod", "{handed_holder.ko}"]),
    GuestJob("handed", ["kleak", "module", "{handed.ko}", *REPORT], timeout_s=600),
    GuestJob("kmemleak-test", ["kleak", "module", "kmemleak-test", *REPORT], timeout_s=600),
    GuestJob("scans after", ["sh", "-c", SCAN_THREADS]),
    GuestJob("leaky", ["kleak", "module", "{leaky.ko}", *REPORT], timeout_s=600),
]

CPUS = 2
# samples/kmemleak/kmemleak-test.c of Linux 6.12: line -> allocator, objects in each load, their
# size. The lines that leak files_cachep are not compiled into a module.
KMEMLEAK_TEST = {
    **dict.fromkeys((43, 44), ("kmalloc", 1, 32)),
    **dict.fromkeys((45, 46), ("kmalloc", 1, 1024)),
    **dict.fromkeys((47, 48), ("kmalloc", 1, 2048)),
    **dict.fromkeys((49, 50), ("kmalloc", 1, 4096)),
    **dict.fromkeys(range(57, 62), ("vmalloc", 1, 4096)),
    68: ("kmalloc", 10, 512),  # struct test_node: 416 bytes
    77: ("kmalloc", CPUS, 192),  # of 129 bytes
    82: ("percpu", 1, None),
}


def report_of(guest: Guest, job: str) -> dict[str, Any]:
    result = guest[job]
    assert result.status == 1, result.stderr
    return json.loads(result.file("report.json").read_text())


def session_of(guest: Guest, job: str) -> Session:
    return read_session(guest[job].file("session.kleak"))


def said(site: dict[str, Any], witness: str = "kmemleak") -> str:
    """What a witness says of a site; empty if it says nothing."""
    return "".join(item["says"] for item in site["evidence"] if item["witness"] == witness)


def site_of(report: dict[str, Any], function: str) -> dict[str, Any]:
    (site,) = [
        site
        for site in report["sites"]
        if base_name(site["frames"][0]["symbol"]) == function  # gcc's copies have suffixes
    ]
    return site


def test_every_object_of_the_kernels_own_test_is_found_at_its_line(guest: Guest) -> None:
    found = {}
    for site in report_of(guest, "kmemleak-test")["sites"]:
        frame = site["frames"][0]
        if frame["module"] != "kmemleak_test":
            continue
        source = frame["source"]
        assert Path(source["file"]).name == "kmemleak-test.c"
        (count,) = {cycle["count"] for cycle in site["per_cycle"]}
        size = None if site["allocator"] == "percpu" else site["outstanding"]["bytes"]
        found[source["line"]] = (
            site["allocator"],
            count,
            None if size is None else size // site["outstanding"]["count"],
        )
    assert found == KMEMLEAK_TEST


def test_kmemleak_agrees_on_most_objects_of_its_own_test(guest: Guest) -> None:
    """Some stale value, on a stack say, may equal the address of one. Where it found one for all
    three objects of a line, that line is likely only, unless it lies in the data of the module
    that is gone; never more than one in four of the lines.
    """
    report = report_of(guest, "kmemleak-test")
    assert report["trust"]["witnesses"]["kmemleak"] == "used"
    own = [site for site in report["sites"] if site["frames"][0]["module"] == "kmemleak_test"]
    for site in own:
        doubted = "found a pointer to it: something else" in said(site)
        assert doubted or unreferenced(site) or "unloaded module" in said(site), said(site)
        assert site["verdict"] == ("likely" if doubted else "confirmed"), said(site)
    agreed = [site for site in own if unreferenced(site)]
    assert len(agreed) > len(own) * 3 / 4
    every = sum(size[1] for size in KMEMLEAK_TEST.values()) * CYCLES
    assert sum(unreferenced(site) for site in own) > every * 3 / 4


def test_an_orphan_is_told_from_what_another_module_holds(guest: Guest) -> None:
    report = report_of(guest, "handed")
    lost, handed = site_of(report, "lose"), site_of(report, "hand_over")
    assert (lost["outstanding"]["count"], handed["outstanding"]["count"]) == (15, 21)
    # Once it found stale pointers to 10 of the 15, by chance: one that it found none to is enough.
    assert unreferenced(lost) > unreferenced(handed) == 0
    assert lost["verdict"] == "confirmed"
    assert said(handed).startswith("kmemleak tracks it and found a pointer to it")
    assert handed["verdict"] == "likely"
    assert handed["score"] < lost["score"]


def test_what_only_the_gone_module_points_to_is_no_less_lost(guest: Guest) -> None:
    """This kernel keeps the data of a module that leaks: its variables still point there."""
    site = site_of(report_of(guest, "handed"), "forget")
    assert site["outstanding"]["count"] == CYCLES
    assert "the data of the unloaded module" in said(site)
    assert site["verdict"] == "confirmed"


@pytest.mark.parametrize(
    "function", ["forget_buffers", "lose_sessions", "forget_rings", "leaky_init"]
)
def test_the_leaks_of_the_example_are_confirmed(guest: Guest, function: str) -> None:
    site = site_of(report_of(guest, "leaky"), function)
    assert said(site).startswith("kmemleak found no pointer to ")
    assert site["verdict"] == "confirmed"


def test_automatic_scans_are_off_for_the_session_and_on_again_after_it(guest: Guest) -> None:
    assert guest["scans before"].stdout == "1\n"
    assert guest["scans after"].stdout == "1\n"
    (change,) = [
        change
        for change in session_of(guest, "handed").circumstances.settings
        if change.path == "/sys/kernel/debug/kmemleak"
    ]
    assert (change.before, change.during, change.restored) == ("scan=on", "scan=off", True)


def test_what_was_reported_before_is_reported_still(guest: Guest) -> None:
    """kleak never writes "clear": the leaks of the session before stay in kmemleak's report."""
    (handed,) = answers(guest, "handed")
    (later,) = answers(guest, "kmemleak-test")
    before = {line for line in handed.splitlines() if line.startswith("unreferenced object")}
    assert before
    # Not all: a pointer to one may have been found since.
    assert len(before.intersection(later.splitlines())) > len(before) / 2


def unreferenced(site: dict[str, Any]) -> int:
    """How many objects of a site kmemleak found no pointer to."""
    match = re.match(r"kmemleak found no pointer to (?:any of the )?(\d+)", said(site))
    return int(match[1]) if match else 0


def answers(guest: Guest, job: str) -> list[str]:
    given = session_of(guest, job).circumstances.answers
    return [answer.text for answer in given if answer.witness == "kmemleak"]


@pytest.mark.parametrize("job", ["handed", "kmemleak-test", "leaky"])
def test_kleaks_own_ledger_hides_nothing_from_kmemleak(guest: Guest, job: str) -> None:
    """The addresses in its maps would be pointers to the objects, if they were stored as such."""
    told = [site.reachability for site in session_of(guest, job).sites if site.reachability]
    assert sum(one.unreferenced for one in told) > 0
