"""The live ledger on the running kernel: maps too small for all that comes, and nothing miscounted.

Each kind of file descriptor has stacks of its own. All but some signalfds are closed again.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kleak.capture.engine.records import Limits
from kleak.capture.lifecycle import Tracing
from kleak.capture.scope import NamedScope
from kleak.model.session import Tally
from kleak.progress import Lines
from kleak.watch.ledger import LiveLedger, Watch, open_ledger
from kleak.watch.readings import Reading, Since
from tests.host import pid_namespaces
from tests.support.build_modules import TOP

KEPT, CLOSED, LATER, CHURNED = 37, 101, 13, 10007
STACKS = 24
KINDS = {
    "do_eventfd": "os.close(os.eventfd(0))",
    "do_epoll_create": "select.epoll().close()",
    "create_pipe_files": "[os.close(fd) for fd in os.pipe()]",
    "__x64_sys_inotify_init1": "os.close(libc.inotify_init1(0))",
}
LOAD = """
import ctypes, os, select, sys
libc = ctypes.CDLL(None)
signals = ctypes.create_string_buffer(128)
for line in sys.stdin:
    exec(line)
    print(flush=True)
"""


@contextmanager
def load() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", LOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def begin(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def do(process: subprocess.Popen[str], line: str) -> None:
    begin(process, line)
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"


def contexts(reading: Reading, since: Since = Since.START) -> Tally:
    (held,) = [
        held
        for site, held in reading.held[since].items()
        if site.function == "do_signalfd4" and site.allocator == "kmalloc"
    ]
    return Tally(held.objects, held.size_bytes)


def keep(process: subprocess.Popen[str], number: int) -> None:
    do(process, f"for i in range({number}): libc.signalfd(-1, signals, 0)")


def close(process: subprocess.Popen[str], ledger: LiveLedger) -> Reading:
    for what in KINDS.values():
        do(process, f"for i in range({CLOSED}): {what}")
        ledger.tend()
    do(process, f"for i in range({CLOSED}): os.close(libc.signalfd(-1, signals, 0))")
    return ledger.read()


def test_what_is_not_outstanding_makes_room() -> None:
    watch = Watch(
        NamedScope(("do_signalfd4", *KINDS)),
        None,
        Tracing(limits=Limits(4096, STACKS, 4 * STACKS)),
    )
    with load() as process, open_ledger(watch, Lines()) as ledger:
        keep(process, KEPT)
        assert contexts(ledger.read()) == Tally(KEPT, 8 * KEPT)
        evicted = 0
        for _ in range(3):
            reading = close(process, ledger)
            assert contexts(reading) == Tally(KEPT, 8 * KEPT)
            assert reading.evicted_stacks > evicted  # those that came back were dropped again
            assert reading.lost == {}
            evicted = reading.evicted_stacks

        ledger.mark()
        keep(process, LATER)
        reading = close(process, ledger)
        assert contexts(reading) == Tally(KEPT + LATER, 8 * (KEPT + LATER))
        assert contexts(reading, Since.MARK) == Tally(LATER, 8 * LATER)
        assert reading.lost == {}

        # What was freed is remembered where something else is outstanding.
        (site,) = [
            site
            for site in ledger.session(keep=3).sites
            if site.allocator == "kmalloc" and site.frames[1].symbol == "do_signalfd4"
        ]
        assert [cycle.outstanding.count for cycle in site.cycles] == [KEPT, LATER]
        assert [cycle.allocated.count for cycle in site.cycles] == [
            KEPT + 3 * CLOSED,
            LATER + CLOSED,
        ]
        assert len(site.kept) == 3

        do(process, "os.closerange(3, 1000)")
        assert not any(site.function == "do_signalfd4" for site in ledger.read().held[Since.START])


def test_nothing_is_miscounted_while_room_is_made() -> None:
    """Rows are dropped all the time while two processes allocate and free on them."""
    watch = Watch(NamedScope(("do_signalfd4",)), None, Tracing())
    with load() as one, load() as other, open_ledger(watch, Lines()) as ledger:
        keep(one, KEPT)
        ledger.mark()  # else the row could not go: it would have the kept ones too
        for process in (one, other):
            # The pauses leave nothing outstanding most of the time: rows can go.
            make = "os.close(libc.signalfd(-1, signals, 0)), libc.usleep(50)"
            begin(process, f"for i in range({CHURNED}): {make}")
        times, answers = 0, [one.stdout, other.stdout]
        while len(select.select(answers, [], [], 0)[0]) < 2:
            ledger._tracer.evict()
            times += 1
        assert times > 2
        reading = ledger.read()
        assert contexts(reading) == Tally(KEPT, 8 * KEPT)
        (site,) = [
            site
            for site in ledger.session(keep=0).sites
            if site.allocator == "kmalloc" and site.frames[1].symbol == "do_signalfd4"
        ]
        assert [cycle.allocated.count for cycle in site.cycles] == [KEPT, 2 * CHURNED]
        assert [cycle.outstanding.count for cycle in site.cycles] == [KEPT, 0]


def test_own_allocations_do_not_appear() -> None:
    with (
        load() as process,
        open_ledger(Watch(NamedScope(), None, Tracing()), Lines()) as ledger,
    ):
        keep(process, KEPT)
        for _ in range(KEPT):
            Path("/proc/self/smaps").read_text()
            ledger.read()
        sites = ledger.session(keep=1000).sites
    pids = Counter(allocation.pid for site in sites for allocation in site.kept)
    assert pids[process.pid] >= KEPT
    assert pids[os.getpid()] == 0


def test_a_process_that_has_ended_is_not_followed() -> None:
    """Nobody has waited for it yet. Once somebody does, its id may be given to another."""
    with load() as process:
        do(process, "ended = os.fork() or os._exit(0)")
        do(process, "os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)")
        watch = Watch(NamedScope(("do_signalfd4",)), process.pid, Tracing())
        with open_ledger(watch, Lines()) as ledger:
            followed = {key for key, _ in ledger._tracer.table("followed").rows()}
    assert followed == {process.pid}


# Given a process id, what that process allocates counts; else only what kleak does not.
WATCHED = f"""
import os, sys
from kleak.watch.ledger import Watch, open_ledger
from kleak.capture.engine.records import Limits
from kleak.capture.lifecycle import Tracing
from kleak.capture.scope import NamedScope
from kleak.watch.readings import Since
from kleak.progress import Lines
pid = int(sys.argv[1]) if sys.argv[1:] else None
with open_ledger(Watch(NamedScope(("alloc_pipe_info",)), pid, Tracing()), Lines()) as ledger:
    kept = [os.pipe() for _ in range({KEPT})]
    if pid:
        print(flush=True)
        sys.stdin.readline()
    print(sum(held.objects for held in ledger.read().held[Since.START].values()))
"""


@pid_namespaces.both
def test_own_allocations_in_a_pid_namespace(within: list[str]) -> None:
    result = subprocess.run(
        [*within, sys.executable, "-c", WATCHED], cwd=TOP, check=True, stdout=subprocess.PIPE
    )
    assert int(result.stdout) < KEPT  # other processes make a pipe now and then


def test_process_of_an_outer_proc() -> None:
    with (
        load() as process,
        subprocess.Popen(
            [*pid_namespaces.OUTER_PROC, sys.executable, "-c", WATCHED, str(process.pid)],
            cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as watching,
    ):  # fmt: skip
        assert watching.stdout is not None
        assert watching.stdout.readline() == "\n"
        do(process, f"kept = [os.pipe() for _ in range({LATER})]")
        assert watching.communicate("\n")[0] == f"{2 * LATER}\n"


def test_maps_that_are_full_are_said() -> None:
    watch = Watch(NamedScope(("do_signalfd4",)), None, Tracing(limits=Limits(11, 2, 4)))
    with load() as process, open_ledger(watch, Lines()) as ledger:
        keep(process, KEPT)
        lost = ledger.read().lost
    assert lost["allocations_beyond_max_stacks"] > 0
    assert lost["allocations_beyond_max_outstanding"] > 0


@pytest.mark.parametrize("named_by", [min, max], ids=["its id", "a thread"])
def test_only_one_process_and_what_it_starts(named_by: Callable[[list[int]], int]) -> None:
    with load() as process, load() as other:
        do(process, "import threading")
        do(process, "threading.Thread(target=threading.Event().wait, daemon=True).start()")
        tasks = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        assert len(tasks) == 2
        watch = Watch(NamedScope(("do_signalfd4",)), named_by(tasks), Tracing())
        with open_ledger(watch, Lines()) as ledger:
            keep(process, KEPT)
            keep(other, LATER)
            assert contexts(ledger.read()) == Tally(KEPT, 8 * KEPT)
            child = "os.fork() or ([libc.signalfd(-1, signals, 0) for i in range({})], os.pause())"
            do(process, "import signal; os.pause = signal.pause; os.pid = " + child.format(LATER))
            while contexts(reading := ledger.read()).count < KEPT + LATER:
                assert reading.lost == {}
            assert contexts(reading) == Tally(KEPT + LATER, 8 * (KEPT + LATER))
            do(process, "os.kill(os.pid, 9)")
