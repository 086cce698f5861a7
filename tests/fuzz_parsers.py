"""Throws damaged reports at the parsers: ``make fuzz``, a minute by default.

    .venv/bin/python tests/fuzz_parsers.py [--seconds N | --rounds N] [--seed N]

Each round takes a sample of tests/data, damages it as logs, mail and crashes do, and reads it.
Whatever comes in, a parser may raise nothing but ParseError, with errors="collect" nothing at
all, and may find no more records than there are lines. As many posted reports are read in damaged
dress, down to the answers of triage and analyze: these may refuse, and nothing else. A finding is
printed with what repeats it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kleak.errors import UsageError
from kleak.parsers import (
    cgroups,
    counted_stacks,
    crash_kmem,
    free,
    memory_dump,
    pagetypeinfo,
    processes,
    ref_tracker,
    slab_tables,
    smem,
    sysfs_slab,
    vmstat,
)
from kleak.parsers.errors import ParseError
from kleak.render.memory import render_triage
from kleak.snapshots.judge import analyze
from kleak.snapshots.snapshot_files import read as read_posted
from kleak.snapshots.triage import triage
from tests.frontend.snapshots.dresses import PREFIXES, QUOTES, wrap
from tests.parsers.samples import SAMPLES, read, sample_id

_INTERESTING = (
    b"\0", b"\xff", b"\n", b"\r\n", b"0x", b"-", b"+0x", b"/0x", b"[", b"]", b"(____ptrval____)",
    b"=", b"\x0b", b"\xe2\x80\xa8", b"99999999999999999999999", b" kB", b"[   12.345678] ", b"\t",
)  # fmt: skip


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.choice(_INTERESTING)


def delete(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 80)]


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data) + 1) :]


def repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randrange(1, 400)]


def glue(data: bytearray, rng: random.Random) -> None:
    data += _pick(rng)


def shuffle_lines(data: bytearray, rng: random.Random) -> None:
    lines = data.splitlines(keepends=True)
    rng.shuffle(lines)
    data[:] = b"".join(lines)


POSTED = sorted(path for path in (SAMPLES[0].parents[1] / "reports").rglob("*") if path.is_file())
# Parsers whose reports come in posted texts only: each takes a text and how to treat errors.
POSTED_PARSERS: tuple[Callable[..., object], ...] = (
    cgroups.parse, cgroups.parse_stat, counted_stacks.parse_memleak, counted_stacks.parse_bpftrace,
    crash_kmem.parse_memory, crash_kmem.parse_regions, free.parse, pagetypeinfo.parse,
    processes.parse, ref_tracker.parse, smem.parse, sysfs_slab.parse, vmstat.parse,
    *(partial(slab_tables.parse, tool) for tool in slab_tables.ROWS),
)  # fmt: skip

DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip, insert, delete, truncate, repeat, glue, shuffle_lines,
)  # fmt: skip


def _pick(rng: random.Random) -> bytes:
    data = rng.choice(SAMPLES).read_bytes()
    start = rng.randrange(max(len(data) - 8000, 1))
    return data[start : start + 8000]


def damaged(sample: Path, rng: random.Random) -> bytes:
    """A piece of the sample, with one to eight damages."""
    whole = sample.read_bytes()
    start = rng.choice((0, rng.randrange(len(whole))))
    data = bytearray(whole[start : start + 8000])
    for _ in range(rng.randrange(1, 9)):
        if data:
            rng.choice(DAMAGES)(data, rng)
    return bytes(data)


def check(report: str, data: bytes) -> None:
    """Read ``data`` in all ways. Raises whatever a parser should not raise."""
    try:
        strict, _ = read(report, data)
    except ParseError:
        strict = None
    records, problems = read(report, data, "collect")
    if strict is not None:
        assert records == strict, "both ways of treating errors must agree on a whole report"
        assert not problems, "no error was raised, but problems were collected"
    assert len(records) <= data.count(b"\n") + 1


def check_posted(data: bytes, rng: random.Random) -> None:
    """Read ``data`` as a report that somebody posted. Raises whatever is not a plain answer."""
    for parse in POSTED_PARSERS:
        for errors in ("raise", "collect"):
            with suppress(ParseError):
                parse(data, errors=errors)
    memory_dump.parse(data)
    dressed = data
    if rng.random() < 0.5:
        text = data.decode("latin-1")
        text = rng.choice(list(QUOTES.values()))(rng.choice(list(PREFIXES.values()))(text))
        dressed = wrap(text, rng.choice((40, 72, 80, 200))).encode()
    try:
        shots = read_posted([], pasted=dressed).snapshots
    except UsageError:
        return
    render_triage(triage(shots[-1], shots[:-1]))
    analyze(shots, "fuzz")


def main() -> int:
    """Fuzz until the time is up. Returns 1 at the first finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, help="so many damaged reports, whatever it takes")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    rounds = 0
    while rounds < options.rounds if options.rounds else time.monotonic() < end:
        seed = options.seed + rounds
        rng = random.Random(seed)
        sample = rng.choice(SAMPLES)
        data = damaged(sample, rng)
        try:
            check(sample.parent.name, data)
            check_posted(damaged(rng.choice(POSTED), rng), rng)
        except Exception:
            print(f"{sample_id(sample)}: repeat with --rounds 1 --seed {seed}", file=sys.stderr)
            raise
        rounds += 1
    print(f"{rounds} damaged reports, seed {options.seed}: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
