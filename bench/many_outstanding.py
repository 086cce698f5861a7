"""From the end of tracing to the printed report, with very many outstanding allocations.

    .venv/bin/python bench/many_outstanding.py [--objects N] [--stacks N] [--cycles N] [--profile]

Needs root. No load of this machine leaves that many objects on that many stacks, so another
process writes them into the maps of a tracer that is attached: stacks of the running kernel's own
functions. All behind that is what `kleak run` does. Prints the
time of each step, and the most memory that this process took after tracing.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tabulate import tabulate

from kleak.analysis.judge import judge
from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.records import Limits
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.read_session import End, Observed, read_session
from kleak.capture.scope import NamedScope
from kleak.capture.witnesses.observer import Observer
from kleak.model.report import Report
from kleak.model.session import Cycle
from kleak.render import table
from kleak.store.writer import SessionWriter
from kleak.symbols.kernel_table import KernelTable
from kleak.symbols.symboliser import Symboliser

WITHIN_S, WITHIN_MB = 2.0, 300.0
DEPTH = 16  # frames between the allocator's two and the system call's two
FIRST, SIZE = 0xFFFF888100000000, 64  # addresses and bytes of the objects


def fill(tracer: Tracer, symbols: KernelTable, objects: int, stacks: int, cycles: int) -> None:
    """Write what would be in the maps: each stack has its share of the objects, in each cycle."""
    chance = random.Random(7)
    called = [
        chance.randrange(text.start + 1, text.end + 1)
        for glob in ("vfs_*", "tcp_*", "sock_*", "dev_*", "netlink_*", "cgroup_*")
        for text in symbols.ranges_of_glob(glob)
        for _ in range(2)
    ]
    inner = [_inside(symbols, name) for name in ("__kmalloc_noprof", "do_syscall_64")]
    keys = [chance.getrandbits(64) for _ in range(stacks)]
    table_of_stacks = tracer.table("stacks")
    for key in keys:
        stack = table_of_stacks.Leaf()
        frames = [inner[0], *chance.choices(called, k=DEPTH), inner[1]]
        stack.depth = len(frames)
        stack.frames[: len(frames)] = frames
        table_of_stacks[table_of_stacks.Key(key)] = stack
    ledger, totals = tracer.table("outstanding"), tracer.table("totals")
    counted: dict[tuple[int, int], int] = {}
    now = time.monotonic_ns()
    entry = ledger.Leaf(size=SIZE, requested=SIZE - 7, comm=b"many")
    for number in range(objects):
        entry.stack, entry.cycle = keys[number % stacks], 1 + number // stacks % cycles
        entry.time_ns, entry.tgid = now - (objects - number), 1000 + number % 50
        place = (entry.stack, entry.cycle)
        counted[place] = counted.get(place, 0) + 1
        ledger[ledger.Key((FIRST + SIZE * number) ^ (1 << 64) - 1)] = entry
    for (key, cycle), count in counted.items():
        row = totals.Leaf(count, count * SIZE, count * (SIZE - 7))
        totals[totals.Key(stack=key, cycle=cycle)] = row


def _inside(symbols: KernelTable, name: str) -> int:
    return symbols.ranges_of_function(name)[0].start + 16


class Clock:
    """Time and processor time of each step."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of what is inside."""
        wall, cpu = time.monotonic(), time.process_time()
        yield
        self.rows.append((name, time.process_time() - cpu, time.monotonic() - wall))

    def total(self, *left_out: str) -> tuple[float, float]:
        """Processor time and time of all steps but some."""
        rows = [row for row in self.rows if row[0] not in left_out]
        return sum(row[1] for row in rows), sum(row[2] for row in rows)


def read_and_report(tracer: Tracer, resolve: Symboliser, cycles: int, clock: Clock) -> Report:
    """Do what `kleak run` does after the last cycle."""
    now = time.monotonic_ns()
    scope = NamedScope()
    spans = [Cycle(number, now, now) for number in range(1, cycles + 1)]
    with tempfile.TemporaryDirectory() as place, Observer(scope.names, cycles) as observer:
        with clock.step("add up"):
            observer.sample("end", 0, tracer.totals())
        with clock.step("read and symbolise"):
            session = read_session(tracer, Observed(scope.target, spans, resolve, observer), End())
        with clock.step("save"), SessionWriter(Path(place) / "many.kleak") as writer:
            writer.save(session)
        with clock.step("rank"):
            report = judge(session)
        with clock.step("print"), open(os.devnull, "w") as nowhere:
            nowhere.write(table.render(report))
    return report


def memory_mb(field: str) -> float:
    """A field of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    """Fill the maps, read them, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--stacks", type=int, default=10_000)
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    options = parser.parse_args()
    symbols = read_kernel_table()
    limits = Limits(options.objects + 1, options.stacks + 1, options.stacks * options.cycles + 1)
    plan = make_plan(read_btf(), symbols, modules=False)
    with Tracer(
        plan, find_headers(), symbols=NamedScope().find(symbols).symbols, limits=limits
    ) as tracer:
        filler = os.fork()
        if filler == 0:
            fill(tracer, symbols, options.objects, options.stacks, options.cycles)
            os._exit(0)
        if os.waitpid(filler, 0)[1]:
            sys.exit("the maps could not be filled")
        resolve, clock = Symboliser(symbols), Clock()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
        before, profile = memory_mb("VmRSS:"), cProfile.Profile()
        with profile if options.profile else nullcontext():
            report = read_and_report(tracer, resolve, options.cycles, clock)
        most = memory_mb("VmHWM:")
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    print(
        f"Linux {os.uname().release}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}: "
        f"{options.objects} objects written into the maps, on {options.stacks} stacks of "
        f"{DEPTH + 2} frames, in {options.cycles} cycles\n"
    )
    rows = [*clock.rows, ("all but save", *clock.total("save")), ("all", *clock.total())]
    print(tabulate(rows, ("step", "CPU s", "s"), floatfmt=".2f"))
    counted = sum(site.outstanding.count for site in report.sites)
    print(f"\nmemory: {before:.0f} MB before, {most:.0f} MB at most")
    print(f"reported: {counted} objects at {len(report.sites)} sites")
    print(f"goal: {WITHIN_S:g} s without saving, {WITHIN_MB:g} MB")
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"most memory of the process, compiling included: {whole:.0f} MB")


if __name__ == "__main__":
    main()
