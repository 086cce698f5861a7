"""What tracing costs on the running kernel: kleak and Debian's memleak-bpfcc, side by side.

    .venv/bin/python bench/engine.py [ROUNDS]

Needs root. In each round a loop that makes and closes pipes runs untraced and under each tracer
in turn; the kernel's own statistics (kernel.bpf_stats_enabled) give the time of each program.
Prints medians over the rounds, with the least and the greatest.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tabulate import tabulate

from kleak.capture.events import make_plan, read_btf
from kleak.capture.headers import bcc_environment, find_headers
from kleak.capture.kernel_state import read_kernel_table
from kleak.capture.machine import setting
from kleak.capture.records import Limits
from kleak.capture.run_session import find_scope
from kleak.capture.tracer import Tracer

PIPES = 50_000
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
SCOPES = {
    "kleak, scope never entered": ("do_signalfd4",),
    "kleak, scope on every stack": ("alloc_pipe_info", "create_pipe_files"),
}
Programs = dict[tuple[int, str], tuple[int, int, int]]


@contextmanager
def kleak(scope: tuple[str, ...]) -> Iterator[None]:
    """Trace a scope."""
    table = read_kernel_table()
    symbols = find_scope(table, scope).symbols
    plan = make_plan(read_btf(), table, modules=False)
    limits = Limits(outstanding=262144)
    with Tracer(plan, find_headers(), symbols=symbols, limits=limits) as tracer:
        tracer.count_allocations(True, cycle=1)
        yield


@contextmanager
def memleak() -> Iterator[None]:
    """Trace with memleak-bpfcc, which has nothing to say before it is ended."""
    before = program_ids()
    with bcc_environment(find_headers()):
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


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with the statistics off again
    loop_ns: dict[str, list[float]] = defaultdict(list)
    event_ns: dict[tuple[str, str], list[float]] = defaultdict(list)
    misses: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch, setting(STATS, "1"):
        loop = [f"{scratch}/loop", str(PIPES)]
        source = Path(__file__).with_name("pipe_loop.c")
        subprocess.run(["gcc", "-O2", "-o", loop[0], str(source)], check=True)

        def measure(tool: str, others: frozenset[int]) -> None:
            before = programs(others)
            ran = subprocess.run(loop, capture_output=True, text=True, check=True)
            loop_ns[tool].append(float(ran.stdout))
            for key, after in programs(others).items():
                runs, ns, missed = (
                    a - b for a, b in zip(after, before.get(key, (0, 0, 0)), strict=True)
                )
                if runs > PIPES // 10:
                    event_ns[tool, key[1]].append(ns / runs)
                    misses[tool, key[1]].append(1e6 * missed / runs)

        for done in range(rounds):
            print(f"round {done + 1} of {rounds}", file=sys.stderr)
            others = program_ids()
            measure("untraced", others)
            for tool, scope in SCOPES.items():
                with kleak(scope):
                    measure(tool, others)
            with memleak():
                measure("memleak-bpfcc", others)

    base = statistics.median(loop_ns["untraced"])
    loops = [
        (tool, *spread(ns), f"{statistics.median(ns) / base:.2f}") for tool, ns in loop_ns.items()
    ]
    print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs, {rounds} rounds, statistics on\n")
    print(tabulate(loops, ("pipe made and closed", "ns", "least", "most", "x untraced")))
    print()
    events = [
        (*key, *spread(ns), f"{statistics.median(misses[key]):.0f}") for key, ns in event_ns.items()
    ]
    print(
        tabulate(
            events, ("tracer", "program", "ns a run", "least", "most", "missed a million runs")
        )
    )


def spread(numbers: list[float]) -> tuple[str, str, str]:
    """Median, least and greatest."""
    return f"{statistics.median(numbers):.0f}", f"{min(numbers):.0f}", f"{max(numbers):.0f}"


if __name__ == "__main__":
    main()
