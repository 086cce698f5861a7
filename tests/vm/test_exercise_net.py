"""Network devices that come and go: the kernel's own modules are innocent, a leaky one is not."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

import pytest

from kleak.frames.names import base_name
from tests.support.build_modules import TOP
from tests.support.guest import Guest, GuestJob

CYCLES = 3
PLANS = TOP / "examples" / "net"
INNOCENT = ("dummy", "veth", "vxlan", "bridge")
LEAKY_PLAN = (
    "link add kind netleak; link set kleak0 up; link set kleak0 down; link set kleak0 up; "
    "link set kleak0 netns other; -n other link del kleak0"
)
LEAKY_COMMAND = "ip link add kleak0 type netleak && ip link set kleak0 up && ip link del kleak0"

JOBS = [
    GuestJob(
        "net-plans",
        [
            *("kleak", "module", "{netleak.ko}", "--cycles", str(CYCLES), "--json", "report.json"),
            *(word for name in INNOCENT for word in ("--module", name)),
            *(
                word
                for name in INNOCENT
                for word in ("--exercise-net", str(PLANS / f"{name}.toml"))
            ),
            *("--exercise-net", LEAKY_PLAN),
        ],
        timeout_s=600.0,
    ),
    GuestJob("net-plans-after", ["sh", "-c", "cat /proc/modules; ip -o link"]),
    GuestJob(
        "net-plan-needs",
        ["kleak", "module", "dummy", "--exercise-net", str(PLANS / "netdevsim.toml")],
    ),
    *(
        GuestJob(
            job,
            [
                *("sh", "-e", "-c"),
                "insmod {netleak.ko}; status=0; "
                f"{shlex.quote(sys.executable)} -m kleak run --module netleak {option} --repeat 3"
                f" --json report.json -- sh -c {shlex.quote(LEAKY_COMMAND)} || status=$?;"
                " rmmod netleak; exit $status",
            ],
        )
        for job, option in (("run-loaded", ""), ("run-own-calls", "--own-calls"))
    ),
]


def report(guest: Guest, job: str) -> dict[str, Any]:
    result = guest[job]
    assert result.status == 1, result.stderr
    document: dict[str, Any] = json.loads(result.file("report.json").read_text())
    assert document["trust"]["complete"], document["trust"]
    return document


def innermost(site: dict[str, Any]) -> tuple[str, str]:
    """Module and function of the innermost frame of a module."""
    frame = next(frame for frame in site["frames"] if frame["module"] is not None)
    return frame["module"], base_name(frame["symbol"] or "")


def counts_by_function(document: dict[str, Any], module: str) -> dict[str, list[int]]:
    """Objects in each cycle; a function that was called on several ways has as many sites."""
    counts: dict[str, list[int]] = {}
    for site in document["sites"]:
        if innermost(site)[0] == module:
            before = counts.get(innermost(site)[1], [0] * CYCLES)
            here = [tally["count"] for tally in site["per_cycle"]]
            counts[innermost(site)[1]] = [a + b for a, b in zip(before, here, strict=True)]
    return counts


def test_a_leaky_device_is_found_and_counted(guest: Guest) -> None:
    found = counts_by_function(report(guest, "net-plans"), "netleak")
    assert found == {
        "leak_at_creation": [3] * CYCLES,
        "leak_at_open": [10] * CYCLES,
        "leak_grown": [14] * CYCLES,
    }


@pytest.mark.parametrize("module", INNOCENT)
def test_an_innocent_module_is_not_accused(guest: Guest, module: str) -> None:
    document = report(guest, "net-plans")
    assert document["cycles"] == CYCLES
    for site in document["sites"]:
        if innermost(site)[0] == module:
            assert site["verdict"] in ("possible", "retained"), site


def test_the_plans_made_the_modules_work(guest: Guest) -> None:
    """An innocent module that did nothing would be no proof."""
    document = report(guest, "net-plans")
    assert document["trust"]["observed"]["allocations"] > 500
    assert document["trust"]["observed"]["frees"] > 500


def test_nothing_is_left_behind(guest: Guest) -> None:
    after = guest["net-plans-after"].stdout
    assert after
    for name in (*INNOCENT, "netleak", "udp_tunnel", "stp", "llc", "kleak"):
        assert name not in after


def test_a_plan_whose_module_is_not_there_says_so(guest: Guest) -> None:
    result = guest["net-plan-needs"]
    assert result.status == 3
    (line,) = [one for one in result.stderr.splitlines() if one.startswith("kleak: ")]
    assert line.endswith(
        f"netdevsim.toml: needs module netdevsim, which kernel {guest.release} does not have"
    )


@pytest.mark.parametrize("job", ["run-loaded", "run-own-calls"])
def test_run_counts_what_a_loaded_module_leaks(guest: Guest, job: str) -> None:
    """By own calls too, and what krealloc() allocates for the module among them."""
    document = report(guest, job)
    found = counts_by_function(document, "netleak")
    assert found == {"leak_at_creation": [3] * 3, "leak_at_open": [5] * 3, "leak_grown": [7] * 3}
    guilty = [site for site in document["sites"] if site["verdict"] in ("likely", "confirmed")]
    assert {innermost(site)[1] for site in guilty} == set(found)
