"""What tracing costs on the running kernel: kleak and Debian's memleak-bpfcc, side by side.

    .venv/bin/python bench/engine.py [--quick] [--rounds N]

Needs root. In each round each load (bench/loads.c) runs untraced, under programs that do nothing,
and under each tracer in turn, in one process and in as many as there are CPUs: that is CPU time of
the load, with the kernel's statistics off. Then they are on (kernel.bpf_stats_enabled) while pipes
and processes are made once more: that is the time of each program, the statistics themselves
included. Prints medians over the rounds, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from tabulate import tabulate

from kleak.capture.engine.bpf_syscall import ProgramType, load_program, open_raw_tracepoint
from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import bcc_environment, find_headers
from kleak.capture.engine.records import Limits
from kleak.capture.engine.sampling import WALK_EVERY
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.machine.settings import held_setting
from kleak.capture.scope import NamedScope

# Operations of each process of a load: about a third of a second untraced.
LOADS = {"pipe": 50_000, "eventfd": 100_000, "message": 100_000, "file": 15_000, "fork": 1_500}
QUICK = ("pipe", "file")
# Loads on which programs are timed, each on the first that has it run often: of pages, forks.
MEASURED = ("pipe", "fork")
EVENTS = (
    "kmalloc",
    "kmem_cache_alloc",
    "kfree",
    "kmem_cache_free",
    "mm_page_alloc",
    "mm_page_free",
    "alloc_vmap_area",
    "free_vmap_area_noflush",
    "percpu_alloc_percpu",
    "percpu_free_percpu",
)
NAME_BYTES = 15  # the kernel keeps of a program's name
RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")  # r0 = 0; exit
TRACEFS = Path("/sys/kernel/tracing")
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
# Functions that allocate, themselves, what a pipe is made of.
PIPE_ALLOCATORS = ("alloc_pipe_info", "alloc_empty_file", "alloc_inode", "__d_alloc")
# What counts, and one in how many stacks is walked.
SCOPES = {
    "kleak, scope never entered": (NamedScope(("do_signalfd4",)), 1),
    "kleak, own calls of a scope never entered": (NamedScope(("do_signalfd4",), own_calls=True), 1),
    "kleak, scope of vfs_*": (NamedScope(("vfs_*",)), 1),
    "kleak, scope on every stack of pipes": (
        NamedScope(("alloc_pipe_info", "create_pipe_files")),
        1,
    ),
    "kleak, own calls on pipes, stacks sampled": (
        NamedScope(PIPE_ALLOCATORS, own_calls=True),
        WALK_EVERY,
    ),
    "kleak, whole kernel, stacks sampled": (NamedScope(), WALK_EVERY),
    "kleak, whole kernel, all stacks walked": (NamedScope(), 1),
}
Programs = dict[tuple[int, str], tuple[int, int, int]]


@contextmanager
def kleak(scope: NamedScope, walk_every: int) -> Iterator[None]:
    """Trace a scope."""
    table = read_kernel_table()
    symbols = scope.find(table).symbols
    plan = make_plan(read_btf(), table, modules=False)
    limits = Limits(outstanding=262144)
    with Tracer(
        plan,
        find_headers(),
        symbols=symbols,
        own_calls=scope.own_calls,
        limits=limits,
        walk_every=walk_every,
    ) as tracer:
        tracer.count_allocations(True, cycle=1)
        yield


@contextmanager
def empty() -> Iterator[None]:
    """One program that does nothing on each event."""
    btf = read_btf()
    with ExitStack() as opened:
        for event in EVENTS:
            if btf.function_parameters(f"__traceiter_{event}") is None:
                continue  # not on this kernel
            program = load_program(event[:NAME_BYTES], ProgramType.RAW_TRACEPOINT, RETURN_0)
            opened.callback(os.close, program)
            opened.callback(os.close, open_raw_tracepoint(program, event))
        yield


@contextmanager
def tracefs() -> Iterator[None]:
    """Mount tracefs, if it is not: bcc reads there what the events have."""
    if (TRACEFS / "events").is_dir():
        yield
        return
    subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", TRACEFS], check=True)


@contextmanager
def memleak() -> Iterator[None]:
    """Trace with memleak-bpfcc, which has nothing to say before it is ended."""
    before = program_ids()
    with tracefs(), bcc_environment(find_headers()):
        process = subprocess.Popen(
            ["memleak-bpfcc", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            attached = 0
            while attached == 0 or len(programs(before)) != attached:
                attached = len(programs(before))
                time.sleep(2)
                if process.poll() is not None:
                    raise SystemExit("memleak-bpfcc ended by itself")
            yield
        finally:
            process.kill()
            process.wait()


def programs(others: frozenset[int] = frozenset()) -> Programs:
    """Runs, nanoseconds and skipped runs of all programs but ``others``, by id and name."""
    shown = subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=True).stdout
    return {
        (program["id"], program.get("name", "")): (
            program.get("run_cnt", 0),
            program.get("run_time_ns", 0),
            program.get("recursion_misses", 0),
        )
        for program in json.loads(shown)
        if program["id"] not in others
    }


def program_ids() -> frozenset[int]:
    """The programs that are loaded now."""
    return frozenset(number for number, _ in programs())


def tools() -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """What traces, by name."""
    return {
        "untraced": nullcontext,
        "empty programs": empty,
        **{name: lambda scope=scope: kleak(*scope) for name, scope in SCOPES.items()},
        "memleak-bpfcc": memleak,
    }


class Bench:
    """Figures of all rounds."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.load_ns: dict[tuple[str, int, str], list[float]] = defaultdict(list)
        self.run_ns: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.missed: dict[tuple[str, str], list[float]] = defaultdict(list)

    def run_load(self, load: str, processes: int) -> float:
        """CPU nanoseconds of an operation."""
        command = [str(self.program), load, str(LOADS[load]), str(processes)]
        ran = subprocess.run(
            command, cwd=self.program.parent, capture_output=True, text=True, check=True
        )
        return float(ran.stdout)

    def measure(self, tool: str, loads: tuple[str, ...], others: frozenset[int]) -> None:
        """Run the loads under a tool that is attached already."""
        for load in loads:
            for processes in sorted({1, os.cpu_count() or 1}):
                self.load_ns[load, processes, tool].append(self.run_load(load, processes))
        with held_setting(STATS, "1", STATS.read_text().strip()):
            timed: set[tuple[int, str]] = set()
            for load in MEASURED:
                before = programs(others)
                self.run_load(load, 1)
                for key, after in programs(others).items():
                    runs, ns, missed = (
                        a - b for a, b in zip(after, before.get(key, (0, 0, 0)), strict=True)
                    )
                    if runs > LOADS[load] // 10 and key not in timed:
                        timed.add(key)
                        self.run_ns[tool, key[1]].append(ns / runs)
                        self.missed[tool, key[1]].append(1e6 * missed / runs)

    def empties(self, program: str, ns: list[float]) -> str:
        """How many programs that do nothing it costs, on the same event of the same load."""
        event = event_of(program)
        empty = self.run_ns.get(("empty programs", event[:NAME_BYTES])) if event else None
        return f"{statistics.median(ns) / statistics.median(empty):.1f}" if empty else ""

    def print_loads(self) -> None:
        """A table of CPU time by load and tool."""
        rows = []
        for (load, processes, tool), ns in self.load_ns.items():
            ratio = statistics.median(ns) / statistics.median(
                self.load_ns[load, processes, "untraced"]
            )
            rows.append((load, processes, tool, *spread(ns), f"{ratio:.2f}"))
        rows.sort(key=lambda row: (list(LOADS).index(row[0]), row[1]))
        heads = ("load", "processes", "tracer", "CPU ns", "least", "most", "x untraced")
        print(tabulate(rows, heads), end="\n\n")

    def print_programs(self) -> None:
        """A table of the time of each program."""
        rows = [
            (
                *key,
                *spread(ns),
                self.empties(key[1], ns),
                f"{statistics.median(self.missed[key]):.0f}",
            )
            for key, ns in self.run_ns.items()
        ]
        heads = ("tracer", "program", "ns a run", "least", "most", "x empty", "missed a million")
        print(tabulate(rows, heads))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of fewer loads")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    loads = QUICK if options.quick else tuple(LOADS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with the statistics off again
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch) / "loads")
        source = Path(__file__).with_name("loads.c")
        subprocess.run(["gcc", "-O2", "-o", str(bench.program), str(source)], check=True)
        for done in range(rounds):
            for tool, attach in tools().items():
                print(f"round {done + 1} of {rounds}: {tool}", file=sys.stderr)
                others = program_ids()
                with attach():
                    bench.measure(tool, loads, others)
    print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs, {rounds} rounds\n")
    bench.print_loads()
    bench.print_programs()


def event_of(program: str) -> str | None:
    """The event of a program, by its name: on_typed_kmem_cache_alloc_1 is typed_kmem_ca_1 there.

    None for one that is on none of EVENTS.
    """
    name = program.rsplit("__", 1)[-1].removeprefix("typed_").removesuffix("_1").removesuffix("_2")
    return next((event for event in EVENTS if event.startswith(name)), None)


def spread(numbers: list[float]) -> tuple[str, str, str]:
    """Median, least and greatest."""
    return f"{statistics.median(numbers):.0f}", f"{min(numbers):.0f}", f"{max(numbers):.0f}"


if __name__ == "__main__":
    main()
