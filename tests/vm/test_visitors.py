"""Modules that come while a capture runs have names on stacks, also when they are gone again."""

from __future__ import annotations

import json

from kleak.frames.names import base_name
from tests.support.guest import Guest, GuestJob

CYCLES = 3
JOBS = [
    GuestJob(
        "visited-module",
        ["kleak", "module", "{pinned.ko}", "--cycles", str(CYCLES), "--json", "report.json",
         "--exercise", "insmod {pinned_user.ko} && sleep 5 && "
         "echo 1 >/sys/module/pinned_user/parameters/more && rmmod pinned_user"],
        timeout_s=600,
    ),
    # Its init is gone, and only its file tells what was there.
    GuestJob(
        "visited-run",
        ["kleak", "run", "--json", "report.json", "--", "modprobe", "dummy", "numdummies=3"],
        timeout_s=600,
        spoils=True,
    ),
]  # fmt: skip


def test_a_module_that_the_exercise_loads_and_unloads(guest: Guest) -> None:
    result = guest["visited-module"]
    assert result.status == 1, result.stderr
    sites = json.loads(result.file("report.json").read_text())["sites"]
    by_count = {site["outstanding"]["count"]: site for site in sites[:2]}
    named = [(frame["module"], base_name(frame["symbol"] or "?"))
             for frame in by_count[2 * CYCLES]["frames"]]  # fmt: skip
    assert ("pinned_user", "join_twice") in named
    assert ("pinned_user", "join_more") in named
    # Of its init no more is known than whose it was.
    by_init = [frame["module"] for frame in by_count[CYCLES]["frames"]]
    assert "pinned_user" in by_init


def test_a_module_that_a_command_loads(guest: Guest) -> None:
    result = guest["visited-run"]
    sites = json.loads(result.file("report.json").read_text())["sites"]
    names = {(frame["module"], frame["symbol"]) for site in sites for frame in site["frames"]}
    assert ("dummy", "dummy_init_module") in names or ("dummy", "init_module") in names
