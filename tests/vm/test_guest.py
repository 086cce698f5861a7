"""What a guest offers to every command that runs in it."""

from __future__ import annotations

from pathlib import Path

from tests.support import guest_jobs
from tests.support.guest import Guest, GuestJob
from tests.support.paths import TOP

FACTS = """
uname -r
id -u
test -e /sys/kernel/tracing/events && echo tracefs
test -d /sys/kernel/debug/tracing && echo debugfs
test -f /lib/modules/$(uname -r)/build/include/generated/autoconf.h && echo headers
modprobe dummy && grep -o '^dummy ' /proc/modules && rmmod dummy && echo modules
"""

JOBS = [
    GuestJob("facts", ["sh", "-c", FACTS]),
    GuestJob("python", ["python", "-c", "import bcc, kleak; print(kleak.__file__)"]),
    GuestJob("refused", ["sh", "-c", "echo kept > kept; echo lost > /usr/lost-by-kleak; exit 3"]),
    GuestJob("endless", ["sh", "-c", "echo begun; sleep 1000"], timeout_s=3),
]


def test_runs_the_kernel_asked_for_with_its_modules_and_headers(guest: Guest) -> None:
    facts = guest["facts"]
    assert facts.stdout.split() == [
        guest.release,
        "0",
        "tracefs",
        "debugfs",
        "headers",
        "dummy",
        "modules",
    ], facts.stderr


def test_imports_bcc_and_this_tree(guest: Guest) -> None:
    python = guest["python"]
    assert python.status == 0, python.stderr
    assert Path(python.stdout.strip()) == TOP / "frontend" / "__init__.py"


def test_shared_files_come_back_and_others_do_not(guest: Guest) -> None:
    refused = guest["refused"]
    assert refused.status == 3
    assert refused.file("kept").read_text() == "kept\n"
    assert not Path("/usr/lost-by-kleak").exists()


def test_a_job_at_its_limit_does_not_end_the_others(guest: Guest) -> None:
    endless = guest["endless"]
    assert endless.status is None
    assert endless.stdout == "begun\n"
    assert 3 <= endless.seconds < 60


def test_status_and_both_streams_of_the_command_reach_the_host(guest: Guest) -> None:
    assert guest.result.failure is None
    assert guest.result.status == guest_jobs.DONE
    assert guest.result.stdout.decode().splitlines()[-1].startswith("job ")
    assert guest.result.stderr.decode() == "end of jobs\n"
