"""Runs the corpus in the guest under memleak-bpfcc, or under kmemleak where the kernel has it.

Arguments: the directory for the results, the corpus module, the keeper module. All cases run in
one session, since it takes minutes to start or to scan; what the tool says in the end is left there
as it is, with the places where the module was loaded.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kleak.capture.engine.headers import bcc_environment, find_headers
from tests.support.corpus import CASES, Case

INTERVAL_S = 60
TIMEOUT_S = 900.0
SETTLE_S = 15.0
SECTION = Path("/sys/module/corpus/sections/.text")
KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
PRINTED = re.compile(r"^\[[\d:]+\] Top", re.MULTILINE)


def run_case(case: Case, corpus: Path, work: Path) -> list[int]:
    """Load, exercise and unload the module; return where its text was, load by load."""
    places = []
    for _ in range(case.cycles):
        subprocess.run(["insmod", corpus, *(case.parameters or (f"case={case.name}",))],
                       stderr=subprocess.DEVNULL, check=False)  # fmt: skip
        if not SECTION.exists():
            continue  # one that is meant to fail
        places.append(int(SECTION.read_text(), 16))
        if case.exercise is not None:
            subprocess.run(["sh", "-c", case.exercise], cwd=work, check=False)
        subprocess.run(["rmmod", "corpus"], check=True)
    return places


def last_print(said: Path, after: int) -> str:
    """Wait for what memleak prints from now on: the first two prints, the first may be cut."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        prints = list(PRINTED.finditer(text := said.read_text(errors="replace"), after))
        if len(prints) >= 2:
            return text[prints[0].start() : prints[1].start()]
        time.sleep(1.0)
    raise SystemExit("memleak-bpfcc does not print")


@contextmanager
def memleak(results: Path) -> Iterator[None]:
    """Have memleak-bpfcc trace; what it prints in the end is left in ``results``."""
    said = results / "memleak.out"
    with bcc_environment(find_headers()), said.open("w") as output:
        peer = subprocess.Popen(
            ["/usr/bin/python3", "-u", "/usr/sbin/memleak-bpfcc", "-T", "1000000", "-o", "1000",
             str(INTERVAL_S)], stdout=output, stderr=subprocess.STDOUT)  # fmt: skip
        end = time.monotonic() + TIMEOUT_S
        while "Attaching" not in said.read_text() and time.monotonic() < end:
            if peer.poll() is not None:
                raise SystemExit(f"memleak-bpfcc: {said.read_text()}")
            time.sleep(1.0)
    time.sleep(5.0)
    yield
    time.sleep(SETTLE_S)
    (results / "memleak.txt").write_text(last_print(said, len(said.read_text(errors="replace"))))
    peer.kill()


@contextmanager
def kmemleak(results: Path) -> Iterator[None]:
    """Have kmemleak forget what was before; what it reports in the end is left in ``results``."""
    KMEMLEAK.write_text("clear")
    yield
    time.sleep(SETTLE_S)
    for _ in range(2):
        KMEMLEAK.write_text("scan")
        time.sleep(SETTLE_S / 2)
    (results / "kmemleak.txt").write_text(KMEMLEAK.read_text(errors="replace"))


def main() -> int:
    """Run all cases that need no other module of the kernel."""
    results, corpus, keeper = (Path(argument).resolve() for argument in sys.argv[1:4])
    os.environ["PATH"] += ":/sbin:/usr/sbin"
    places: dict[str, list[int]] = {}
    # Not both: kmemleak would find the addresses in memleak's map, and call nothing unreferenced.
    with kmemleak(results) if KMEMLEAK.exists() else memleak(results):
        for case in CASES:
            if case.module is not None:
                continue
            subprocess.run(["insmod", keeper], check=True)
            work = Path("/tmp/peers") / case.name
            work.mkdir(parents=True)
            places[case.name] = run_case(case, corpus, work)
            subprocess.run(["rmmod", "corpus_keeper"], check=True)
            print(case.name, flush=True)
    (results / "places.json").write_text(json.dumps(places))
    return 0


if __name__ == "__main__":
    sys.exit(main())
