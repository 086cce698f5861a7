"""The plan for netdevsim, which Debian's kernels do not have."""

from __future__ import annotations

import json

from tests.support.build_modules import TOP
from tests.support.guest import Guest, GuestJob

KERNELS = ("dev",)
CYCLES = 3
PLAN = TOP / "examples" / "net" / "netdevsim.toml"

JOBS = [
    GuestJob(
        "netdevsim",
        ["kleak", "module", "netdevsim", "--cycles", str(CYCLES), "--exercise-net", str(PLAN),
         "--json", "report.json"],
        timeout_s=600.0,
    ),
    GuestJob("netdevsim-after", ["cat", "/proc/modules"]),
]  # fmt: skip


def test_the_plan_runs_and_accuses_nobody(guest: Guest) -> None:
    result = guest["netdevsim"]
    assert result.status == 0, result.stderr
    report = json.loads(result.file("report.json").read_text())
    assert report["cycles"] == CYCLES
    assert report["trust"]["complete"], report["trust"]
    # A plan that did nothing would be no proof.
    assert report["trust"]["observed"]["allocations"] > 500
    assert "netdevsim" not in guest["netdevsim-after"].stdout
