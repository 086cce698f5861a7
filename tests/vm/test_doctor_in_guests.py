"""The doctor's table on real kernels, against what the main job then had."""

from __future__ import annotations

import json

from kleak.capture.engine.outside import ENVIRONMENT
from kleak.vm.kernels import DEV_RELEASE
from tests.support.guest import Guest, GuestJob

KERNELS = ("6.1", "6.12", "dev")
ALL = ["module", "run"]  # an event that nothing needs is wanted by both

JOBS = [
    # Compiled by the guest itself, with the headers of its kernel; all other jobs have it done.
    GuestJob("doctor", ["kleak", "doctor", "--json"], environment={ENVIRONMENT: ""}),
    GuestJob(
        "doctor-proof",
        ["kleak", "module", "{leaky.ko}", "--cycles", "1", "--json", "report.json"],
    ),
    GuestJob("doctor-outside", ["sh", "-c", f"ls ${ENVIRONMENT}"]),
]


def test_events_are_those_that_the_main_job_had(guest: Guest) -> None:
    result = guest["doctor"]
    assert result.status == 0, result.stdout + result.stderr
    findings = json.loads(result.stdout)["findings"]
    said = {
        row["name"]: row["found"]
        for row in findings
        if row["area"] == "events"
        and row["state"] != "no"
        and "module" in (row["needed_by"] or ALL)
    }
    proof = guest["doctor-proof"]
    assert proof.status in (0, 1), proof.stderr
    trust = json.loads(proof.file("report.json").read_text())["trust"]
    means = trust["means"]
    headers = means.pop("kernel headers")
    assert said == means  # none is "absent: ...": these kernels show all
    by_name = {row["name"]: row for row in findings}
    assert by_name["kernel headers"]["found"].startswith(headers)
    assert by_name["module loading"]["state"] == "yes"
    assert (by_name["vmallocinfo"]["state"] == "yes") == (
        trust["witnesses"]["vmallocinfo"] == "used"
    )
    for row, witness in (
        ("kmemleak", "kmemleak"),
        ("page_owner", "page_owner"),
        ("allocation profiling", "allocinfo"),
    ):
        used = trust["witnesses"][witness] == "used"
        assert (by_name[row]["state"] == "yes") == used, by_name[row]
        # Debian's kernels are built without.
        assert used == guest.release.endswith(DEV_RELEASE)


def test_the_host_compiled_for_the_guest(guest: Guest) -> None:
    names = guest["doctor-outside"].stdout.split()
    assert any(name.endswith(".programs") for name in names), names
    assert not any(name.endswith(".failed") for name in names), names
