"""How long a session with very many outstanding allocations takes to save and to report.

Prints what docs/session-file.md and the tests promise beside what was measured. Standard use:

    .venv/bin/python bench/session_file.py [ALLOCATIONS] [SITES]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kleak.model.session import (
    Allocation,
    Cycle,
    CycleTally,
    Frame,
    Kernel,
    Session,
    Source,
    Tally,
    Target,
    TracedSite,
    Trust,
)
from kleak.store.writer import SessionWriter

SAVED_WITHIN_S, SAVED_WITHIN_MB, REPORTED_WITHIN_S = 10.0, 200.0, 2.0
REPEATS = 5
DEPTH = 12


def make_session(allocations: int, sites: int) -> Session:
    """A session of a module with ``allocations`` outstanding, spread over ``sites``."""
    outer = [Frame(None, f"caller_{number}", 16 * number) for number in range(DEPTH - 2)]
    each = allocations // sites
    traced = []
    for number in range(sites):
        frames = (
            Frame(None, "__kmalloc_noprof", 0x244),
            Frame("leaky", f"leak_{number}", 28, Source("leaky.c", number)),
            *outer,
        )
        kept = tuple(
            Allocation(
                0xFFFF888000000000 + (number * each + i) * 128,
                128,
                120,
                10**12 + 1000 * (number * each + i),
                1 + i % 5,
                1000 + i % 50,
                f"worker-{i % 50}",
            )
            for i in range(each)
        )
        per_cycle = CycleTally(Tally(each // 5, 128 * (each // 5)), Tally())
        traced.append(TracedSite("kmalloc", frames, (per_cycle,) * 5, 120 * each, kept))
    return Session(
        Kernel("6.12.1", "x86_64"),
        Target("module", "leaky", "leaky.ko"),
        tuple(Cycle(number, number * 10**9, number * 10**9 + 1) for number in range(1, 6)),
        tuple(traced),
        Trust(),
        (),
    )


def main() -> None:
    """Save, report, and print the times."""
    allocations = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    sites = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    session = make_session(allocations, sites)
    with tempfile.TemporaryDirectory(dir=".") as directory:
        path = Path(directory) / "many.kleak"
        saves = []
        for _ in range(REPEATS):
            start = time.monotonic()
            with SessionWriter(path, replace=True) as writer:
                writer.save(session)
            saves.append(time.monotonic() - start)
        megabytes = path.stat().st_size / 1e6
        print(f"{allocations} outstanding allocations in {sites} sites, {REPEATS} times each")
        print(f"save         {_spread(saves)}  (at most {SAVED_WITHIN_S:.0f} s)")
        print(f"size         {megabytes:.1f} MB  (at most {SAVED_WITHIN_MB:.0f} MB)")
        for options in ((), ("--format", "html"), ("--group-by", "process")):
            before = _cpu_seconds()
            times = [_report(path, options) for _ in range(REPEATS)]
            cpu = (_cpu_seconds() - before) / REPEATS
            limit = f"  (at most {REPORTED_WITHIN_S:.0f} s)" if not options else ""
            shown = " ".join(options) or "text"
            print(f"report {shown:<20} {_spread(times)}, {cpu:.2f} s of CPU{limit}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"most memory of a report: {peak:.0f} MB")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(path: Path, options: tuple[str, ...]) -> float:
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "kleak", "report", str(path), *options],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return time.monotonic() - start


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:.2f} s ({ordered[0]:.2f} to {ordered[-1]:.2f})"


if __name__ == "__main__":
    main()
