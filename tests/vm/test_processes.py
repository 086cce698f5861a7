"""Whose allocations count with --by-process, on kernels that tell of processes each in its way."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest

from tests.host.pid_namespaces import OWN_PROC
from tests.support.build_modules import TOP
from tests.support.guest import Guest, GuestJob

PIPES, FILES = 41, 137
HOST = TOP / "tests" / "host"
# One scope for all, so that its programs are compiled once.
RUN = [sys.executable, "-m", "kleak", "run", "--scope", "alloc_pipe_info", "--scope",
       "alloc_empty_file*", "--by-process", "--tree-timeout", "1", "--json", "report.json", "--",
       sys.executable]  # fmt: skip
DAEMON = [str(HOST / "pipe_daemon.py"), str(PIPES), "600"]

JOBS = [
    GuestJob(
        "exec-by-a-thread", [*RUN, str(HOST / "thread_exec.py"), *DAEMON], spoils=True
    ),
    GuestJob("in-a-pid-namespace", [*OWN_PROC, *RUN, *DAEMON]),
    GuestJob("io-uring", [*RUN, str(HOST / "uring_daemon.py"), str(FILES)], spoils=True),
]  # fmt: skip


def kept(guest: Guest, name: str) -> Counter[tuple[str, bool]]:
    """Objects that were kept, by the function that allocated them and whether a worker did."""
    result = guest[name]
    assert result.status in (0, 1), result.stderr
    report = json.loads(result.file("report.json").read_text())
    assert report["trust"]["lost"] == {}
    (note,) = [note for note in report["trust"]["notes"] if "had not ended" in note]
    assert ": 1 (" in note
    objects: Counter[tuple[str, bool]] = Counter()
    for site in report["sites"]:
        symbols = [frame["symbol"] for frame in site["frames"]]
        by_worker = any("io_wq" in str(symbol) for symbol in symbols)
        objects[symbols[0], by_worker] += site["outstanding"]["count"]
    return objects


@pytest.mark.parametrize("name", ["exec-by-a-thread", "in-a-pid-namespace"])
def test_a_process_is_not_lost(guest: Guest, name: str) -> None:
    assert kept(guest, name)["alloc_pipe_info", False] == 2 * PIPES


def test_workers_of_io_uring_are_the_process(guest: Guest) -> None:
    by_worker = [count for (_, worker), count in kept(guest, "io-uring").items() if worker]
    assert set(by_worker) == {FILES}
