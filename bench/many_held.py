"""What an event costs while very many objects are outstanding.

    .venv/bin/python -m bench.many_held [--rounds N]

Needs root. Processes hold eventfds in the scope of one tracer, a thousand objects and then a
million; meanwhile a constant load makes and closes eventfds, which are in the scope, and pipes,
which are not: their frees are of addresses that the ledger does not have. Prints the time of
each program, with the kernel's statistics, and how it changes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tabulate import tabulate

from bench.engine import STATS, program_ids, programs
from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.records import Limits
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.machine.settings import held_setting
from kleak.capture.scope import NamedScope

FEW, MANY = 1_000, 1_000_000
LOADS = {"eventfd": 50_000, "pipe": 25_000}
GOAL = 1.5
HOLD = """
import os, sys
kept = [os.eventfd(0) for _ in range(int(sys.argv[1]))]
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def held(tracer: Tracer, objects: int) -> Iterator[None]:
    """So many objects, in as many processes as the limit of open files asks for."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as processes:
        number = 100
        while (missing := objects - tracer.outstanding_count()) > 0:
            before = tracer.outstanding_count()
            process = processes.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLD, str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert process.stdout is not None
            process.stdout.readline()
            gained = tracer.outstanding_count() - before
            if gained < number:
                raise SystemExit("the ledger is full, or eventfds are not in the scope")
            number = min(max(1, (missing - gained) * number // gained), most - 50)
        yield


class Bench:
    """Figures by number of objects, load and program."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.ns: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def measure(self, objects: int, others: frozenset[int]) -> None:
        """Run the loads under the tracer's programs."""
        for load, count in LOADS.items():
            command = [str(self.program), load, str(count), "1"]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            self.ns[load, "the load, CPU time, statistics off"][objects].append(float(ran.stdout))
            with held_setting(STATS, "1", STATS.read_text().strip()):
                before = programs(others)
                subprocess.run(command, capture_output=True, check=True)
                after = programs(others)
            for key, (runs, ns, _) in after.items():
                runs, ns = runs - before[key][0], ns - before[key][1]
                if runs > count // 2:
                    self.ns[load, key[1]][objects].append(ns / runs)

    def show(self, counts: dict[int, int]) -> None:
        """Print the medians and their ratio."""
        rows = []
        for (load, name), by_objects in sorted(self.ns.items()):
            few, many = (statistics.median(by_objects[objects]) for objects in counts)
            rows.append((load, name, f"{few:.0f}", f"{many:.0f}", f"{many / few:.2f}"))
        heads = [f"ns, {count} outstanding" for count in counts.values()]
        print(tabulate(rows, ("load", "program", *heads, "ratio")))
        print(f"\ngoal: at most {GOAL}")


def main() -> None:
    """Measure with few and with many objects, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    table = read_kernel_table()
    plan, others, counts = make_plan(read_btf(), table, modules=False), program_ids(), {}
    symbols = NamedScope(("*_sys_eventfd2", "do_eventfd")).find(table).symbols
    limits = Limits(outstanding=MANY + 10_000)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch) / "loads")
        source = Path(__file__).with_name("loads.c")
        subprocess.run(["gcc", "-O2", "-o", str(bench.program), str(source)], check=True)
        for objects in (FEW, MANY):
            with Tracer(plan, find_headers(), symbols=symbols, limits=limits) as tracer:
                tracer.count_allocations(True, cycle=1)
                with held(tracer, objects):
                    counts[objects] = tracer.outstanding_count()
                    for _ in range(rounds):
                        bench.measure(objects, others)
                lost = tracer.counters().counted["ledger_full"]
                if lost:
                    sys.exit(f"the ledger was full: {lost} allocations were not booked")
    print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
          f"{rounds} rounds\n")  # fmt: skip
    bench.show(counts)


if __name__ == "__main__":
    main()
