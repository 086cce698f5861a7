"""The README's commands that load modules, run in the guest."""

from __future__ import annotations

from tests.support.guest import Guest, GuestJob
from tests.support.readme import commands

COMMANDS = [
    ["{leaky.ko}" if word == "./leaky.ko" else word for word in words] for words in commands("vm")
]
JOBS = [GuestJob(f"readme-{number}", words) for number, words in enumerate(COMMANDS)]


def test_module_by_file(guest: Guest) -> None:
    result = guest["readme-0"]
    assert result.status == 1, result.stderr
    for function in ("forget_rings", "forget_buffers", "lose_sessions", "leaky_init"):
        assert function in result.stdout


def test_module_by_name_with_json(guest: Guest) -> None:
    """The dummy driver is no leak."""
    result = guest["readme-1"]
    assert result.status == 0, result.stdout + result.stderr
    assert result.file("report.json").exists()


def test_doctor_says_that_the_main_job_can_run(guest: Guest) -> None:
    result = guest["readme-2"]
    assert COMMANDS[2] == ["kleak", "doctor"]
    assert result.status == 0, result.stdout + result.stderr
