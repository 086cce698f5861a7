"""The look at the words of the stack (bpf/prefilter.h) loses nothing that the full walk finds."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.scope import NamedScope
from kleak.frames.names import is_interrupt
from kleak.frames.stacks import Frames, strip_tracer
from kleak.symbols.symboliser import Symboliser
from tests.support.build_modules import TOP

EVENTFDS = """
import os, sys
print(flush=True)
sys.stdin.read()
for _ in range(int(sys.argv[1])):
    os.close(os.eventfd(0))
os._exit(0)
"""
LOADS = TOP / "tests" / "host"


def signalfds(place: Path) -> None:
    load = LOADS / "signalfd_load.py"
    subprocess.run([sys.executable, load, "2", "1009", "1"], cwd=place, check=True)
    os.kill(int((place / "keeper").read_text()), 9)


def queues(place: Path) -> None:
    subprocess.run([sys.executable, LOADS / "stress_load.py", "queues", "2"], check=True)


def work_for_kernel_threads(place: Path) -> None:
    for number in range(31):
        with open(place / "file", "wb") as file:
            file.write(os.urandom(4096 * number))
            os.fsync(file.fileno())
        if number % 4 == 0:
            subprocess.run(["unshare", "--net", "true"], check=True)


def found(tracer: Tracer) -> Counter[tuple[str, Frames]]:
    """How often each site allocated. What began in an interrupt is left out: the kernel skips a
    program that was interrupted in its work, which is another event for each tracer.
    """
    resolve = Symboliser(read_kernel_table()).resolve
    stacks = {
        key: strip_tracer([resolve(address, 1) for address in addresses])
        for key, addresses in tracer.stacks().items()
    }
    sites: Counter[tuple[str, Frames]] = Counter()
    for row in tracer.totals():
        frames = stacks[row.stack]
        if not any(map(is_interrupt, frames)):
            sites[row.family, frames] += row.allocated
    return sites


@pytest.mark.parametrize(
    ("scope", "load"),
    [
        (("do_signalfd4",), signalfds),
        (("*_sys_mq_open", "*_sys_mq_timedsend"), queues),
        (("kthread",), work_for_kernel_threads),
        (("vfs_*", "ksys_*"), work_for_kernel_threads),
    ],
    ids=["function", "system calls", "kernel threads", "scattered functions"],
)
def test_finds_what_the_full_walk_finds(
    scope: tuple[str, ...], load: Callable[[Path], None], tmp_path: Path
) -> None:
    """Tracers that walk every stack count from before and from after the one that does not: what
    it finds of each site must lie between what they do, whatever else this machine allocates.
    """
    table, btf = read_kernel_table(), read_btf()
    symbols = NamedScope(scope).find(table).symbols
    with ExitStack() as stack:
        tracers = []
        for walks_all in (True, False, True):
            plan = make_plan(btf, table, modules=False)
            if walks_all:
                plan.constants.pop("OFF_TASK_STRUCT_STACK", None)
            tracers.append(stack.enter_context(Tracer(plan, find_headers(), symbols=symbols)))
        for tracer in tracers:
            tracer.count_allocations(True, cycle=1)
        load(tmp_path)
        for tracer in reversed(tracers):
            tracer.count_allocations(False)
        longest, filtered, shortest = map(found, tracers)
        walks = [tracer.counters().counted["walks"] for tracer in tracers]
    assert len(shortest) > 1
    assert shortest <= filtered, "missed: " + str(shortest - filtered)
    assert filtered <= longest, "not in scope: " + str(filtered - longest)
    assert walks[1] < walks[2]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere each stack is walked")
def test_code_between_the_functions_of_a_scope_costs_no_walk() -> None:
    """The stacks of eventfds are of files that lie among those with functions of vfs_*."""
    made, table = 20011, read_kernel_table()
    symbols = NamedScope(("vfs_*",)).find(table).symbols
    assert symbols is not None
    (eventfd,) = table.ranges_of_function("do_eventfd")
    assert symbols.envelope.start < eventfd.start < symbols.envelope.end
    plan = make_plan(read_btf(), table, modules=False)
    with Tracer(plan, find_headers(), symbols=symbols) as tracer:
        load = [sys.executable, "-c", EVENTFDS, str(made)]
        with subprocess.Popen(load, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()  # Python itself was read from files, by functions in scope
            tracer.count_allocations(True, cycle=1)
            process.stdin.close()
            process.wait()
            tracer.count_allocations(False)
        assert tracer.counters().counted["walks"] < made // 4


def test_words_of_stacks_are_forgotten(tmp_path: Path) -> None:
    """kmemleak would take them for pointers."""

    def words() -> list[int]:
        values = [value for _, value in tracer.table("stack_words").rows()]
        return [word for value in values for on_cpu in value for word in on_cpu.words if word]

    symbols = NamedScope(("do_signalfd4",)).find(read_kernel_table()).symbols
    plan = make_plan(read_btf(), read_kernel_table(), modules=False)
    with Tracer(plan, find_headers(), symbols=symbols) as tracer:
        tracer.count_allocations(True, cycle=1)
        signalfds(tmp_path)
        tracer.count_allocations(False)
        assert words()
        tracer.forget_scratch()
        assert not words()
