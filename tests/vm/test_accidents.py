"""What goes wrong: one clear line, the right status, what was measured so far, nothing left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.guest import Guest, GuestJob

INTERRUPTED = str(Path(__file__).with_name("interrupted_kleak.py"))

JOBS = [replace(job, spoils=True) for job in (
    GuestJob("accident-init", ["kleak", "module", "{accident.ko}", "how=init", "--cycles", "3"]),
    GuestJob(
        "accident-error-path",
        ["kleak", "module", "{accident.ko}", "how=init", "--cycles", "3", "--init-may-fail",
         "--json", "-"],
    ),
    GuestJob(
        "accident-busy",
        ["kleak", "module", "{accident.ko}", "how=busy", "--cycles", "1",
         "--exercise", "echo noise; exit 3"],
    ),
    GuestJob("accident-interrupt", ["python", INTERRUPTED, "{leaky.ko}", "SIGINT"]),
    GuestJob("by-name", ["kleak", "module", "vxlan", "--cycles", "1", "--verbose",
                         "--exercise", "cat /proc/modules >modules"]),
    GuestJob("by-name-after", ["cat", "/proc/modules"]),
    GuestJob("built-in", ["kleak", "module", "firmware_class"]),
    GuestJob("unknown-name", ["kleak", "module", "no_such_module"]),
    # These two leave their module behind, so they come last.
    GuestJob("accident-hang", ["kleak", "module", "{accident.ko}", "how=hang", "--cycles", "3",
                               "--unload-timeout", "3"]),
    GuestJob("accident-hang-over", ["sleep", "20"]),
    GuestJob("accident-stay", ["kleak", "module", "{accident.ko}", "how=stay", "--cycles", "3"]),
    GuestJob("accident-loaded", ["kleak", "module", "{accident.ko}"]),
)]  # fmt: skip


def error_line(stderr: str) -> str:
    """The one line that kleak says of an error; a traceback or a second line fails."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("kleak: ")]
    assert "Traceback" not in stderr
    return line


def test_failing_init_is_a_failure_with_what_was_seen(guest: Guest) -> None:
    result = guest["accident-init"]
    assert result.status == 4
    assert "module accident does not load: No such device" in error_line(result.stderr)
    assert "leak_on_error_path" in result.stdout  # one cycle was measured


def test_error_path_of_init_is_measured_in_every_cycle(guest: Guest) -> None:
    result = guest["accident-error-path"]
    assert result.status == 1, result.stderr
    site = json.loads(result.stdout)["sites"][0]
    assert site["per_cycle"] == [{"count": 3, "bytes": 3 * 96}] * 3
    assert "leak_on_error_path" in site["frames"][0]["symbol"]
    assert "leak_on_error_path" in result.stderr  # the table, when standard output is for JSON


def test_exercise_that_fails(guest: Guest) -> None:
    result = guest["accident-busy"]
    assert result.status == 4
    assert "the exercise command failed with exit status 3" in error_line(result.stderr)
    assert "noise" not in result.stdout


def test_module_that_is_busy_for_a_moment_is_unloaded(guest: Guest) -> None:
    # The next job could not load it otherwise.
    assert "accident " not in guest["by-name-after"].stdout


def test_interrupt_leaves_nothing_behind(guest: Guest) -> None:
    result = guest["accident-interrupt"]
    assert result.status == 0, result.stderr
    left = json.loads(result.stdout)
    assert left["status"] == 130
    assert error_line(left["stderr"]) == "kleak: interrupted"
    assert "forget_buffers" in left["stdout"]  # the first cycle was measured
    assert "leaky " not in left["loaded"]
    assert left["kptr_restrict"] == "2"
    assert not left["sleeping"]


def test_module_by_name_comes_and_goes_with_its_dependencies(guest: Guest) -> None:
    result = guest["by-name"]
    assert result.status == 0, result.stdout + result.stderr
    while_loaded = result.file("modules").read_text()
    assert "vxlan " in while_loaded
    assert "udp_tunnel " in while_loaded
    after = guest["by-name-after"].stdout
    assert "vxlan " not in after
    assert "udp_tunnel " not in after


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("built-in", "is built into this kernel"),
        ("unknown-name", "is not among those of kernel"),
        ("accident-loaded", "is loaded already"),
        ("accident-stay", "does not unload: Module accident is in use"),
        ("accident-hang", "exit of accident has not returned after 3 s"),
    ],
)
def test_one_clear_line(guest: Guest, job: str, said: str) -> None:
    result = guest[job]
    assert result.status == 4, result.stderr
    assert said in error_line(result.stderr)
