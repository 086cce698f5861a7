"""Time and memory of the two parsers whose reports grow large, on one core.

    .venv/bin/python bench/parsers.py

Writes 1,000,000 rows of /proc/vmallocinfo and 100,000 objects of kmemleak (about 100 MB), reads
each as a stream in a process of its own, and prints seconds and peak memory, also for a tenth of
the input: memory that does not grow is the same for both.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from kleak.parsers import kmemleak, vmallocinfo

ROWS, OBJECTS, RUNS = 1_000_000, 100_000, 3
GOALS = {"vmallocinfo": 3.0, "kmemleak": 6.0}
READERS = {"vmallocinfo": vmallocinfo.stream, "kmemleak": kmemleak.stream}


def vmallocinfo_rows(count: int, kind: str) -> Iterator[str]:
    """Rows of 5,000 callers and sizes; every 20th an ioremap with a physical address of its own."""
    rng = random.Random(1)
    callers = [
        f"function_{number}+0x{rng.randrange(4096):x}/0x{4096 + rng.randrange(4096):x}"
        + (f" [module_{number % 97}]" if number % 2 else "")
        for number in range(5000)
    ]
    start = 0xFF81959E80000000
    for row in range(count):
        number = rng.randrange(5000)
        pages = 1 + number % 61
        size = (pages + 1) * 4096
        if row % 20:
            tail = f"pages={pages} vmalloc N0={pages}"
        else:
            tail = f"phys=0x{rng.randrange(1 << 36) << 12:016x} ioremap"
        if kind == "real":
            span = f"0x{start:016x}-0x{start + size:016x}"
        else:
            span = f"0x{rng.getrandbits(32) | 1:016x}-0x{rng.getrandbits(32) | 1:016x}"
        yield f"{span} {size:7d} {callers[number]} {tail}\n"
        start += size + 4096


def kmemleak_objects(count: int, kind: str) -> Iterator[str]:
    """Objects of 2,000 stacks of 16 frames."""
    rng = random.Random(2)
    frames = [
        f"function_{number}+0x{rng.randrange(4096):x}/0x{4096 + rng.randrange(4096):x}"
        + (f" [module_{number % 97}]" if number % 5 == 0 else "")
        for number in range(3000)
    ]
    stacks = [rng.sample(range(3000), 16) for _ in range(2000)]
    address = 0xFF2070DC00000000
    for _ in range(count):
        address += 192
        contents = rng.randbytes(32)
        yield f"unreferenced object 0x{address:x} (size 184):\n"
        age = "" if kind == "6.12" else f" (age {rng.randrange(10**6) / 1000:.3f}s)"
        yield f'  comm "insmod", pid {rng.randrange(30000)}, jiffies {address & 0xFFFFFFFF}{age}\n'
        yield "  hex dump (first 32 bytes):\n"
        for half in (contents[:16], contents[16:]):
            shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in half)
            yield f"    {half.hex(' ')}  {shown}\n"
        yield "  backtrace (crc 9c3a2f1e):\n" if kind == "6.12" else "  backtrace:\n"
        for number in rng.choice(stacks):
            # the hash of a pointer is the same each time it is printed
            bracket = "" if kind == "6.12" else f"[<{number * 0x9E3779B1 & 0xFFFFFFFF:016x}>] "
            yield f"    {bracket}{frames[number]}\n"


def read(report: str, path: Path, answer: Connection) -> None:
    """Read a file as a stream; answer with records, seconds and peak memory in bytes."""
    begin = time.perf_counter()
    with path.open("rb") as file:
        records = sum(1 for _ in READERS[report](file))
    seconds = time.perf_counter() - begin
    answer.send((records, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def measure(report: str, path: Path) -> tuple[int, float, float, int]:
    """Records, median and greatest of the seconds, peak memory; each run in a fresh process."""
    seconds, peak, records = [], 0, 0
    context = multiprocessing.get_context("spawn")
    for _ in range(RUNS):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=read, args=(report, path, sender))
        process.start()
        records, took, memory = receiver.recv()
        process.join()
        seconds.append(took)
        peak = max(peak, memory)
    return records, statistics.median(seconds), max(seconds), peak


def main() -> None:
    """Write the inputs, measure, print."""
    print(f"{platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"{'report':<12} {'kind':<7} {'records':>9} {'MB':>6} {'s':>6} {'worst':>6} {'goal':>5} "
          f"{'peak MB':>8}")  # fmt: skip
    cases = [
        ("vmallocinfo", kind, count, vmallocinfo_rows)
        for kind in ("real", "hashed")
        for count in (ROWS // 10, ROWS)
    ] + [
        ("kmemleak", kind, count, kmemleak_objects)
        for kind in ("6.12", "6.1")
        for count in (OBJECTS // 10, OBJECTS)
    ]
    with tempfile.TemporaryDirectory() as directory:
        for report, kind, count, write in cases:
            path = Path(directory) / report
            with path.open("w", encoding="ascii") as file:
                file.writelines(write(count, kind))
            records, median, worst, peak = measure(report, path)
            if records != count:
                raise SystemExit(f"{report}: {records} records of {count}")
            whole = (report, count) in (("vmallocinfo", ROWS), ("kmemleak", OBJECTS))
            goal = f"{GOALS[report]:.0f}" if whole else "-"
            size = path.stat().st_size / 1e6
            print(f"{report:<12} {kind:<7} {count:>9} {size:>6.0f} {median:>6.2f} {worst:>6.2f} "
                  f"{goal:>5} {peak / 1e6:>8.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
