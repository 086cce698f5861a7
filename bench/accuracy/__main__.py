"""``make accuracy``: run the corpus on Debian's kernels in virtual machines and publish the score.

A whole run has the corpus once more under memleak-bpfcc, and kmemleak where the kernel has it; the
case "peers" is that alone.
With --render nothing is run: docs/accuracy.md is written from what the last runs left in build/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.accuracy import page, peers
from bench.accuracy.score import Score, score
from kleak.symbols.module_image import ModuleImage
from kleak.vm import boot, find_kernel, release_of
from tests.build_modules import TOP, build_unit
from tests.corpus import CASES

SERIES = ("6.1", "6.12")
RESULTS = TOP / "build" / "accuracy"
CORPUS = TOP / "tests" / "modules" / "corpus"
SECONDS_A_CASE = 120.0
BOOT_SECONDS = 600.0
PEERS_SECONDS = 3600.0


def run(series: str, names: Sequence[str]) -> None:
    """Run the cases on one kernel. The records stay in build/accuracy/RELEASE."""
    kernel = find_kernel(series)
    results = RESULTS / release_of(kernel)
    if not names and results.exists():
        shutil.rmtree(results)
    corpus, keeper = build_unit(CORPUS, kernel)
    in_guest(
        kernel,
        results,
        ["bench.accuracy.guest", results, corpus, keeper, *names],
        BOOT_SECONDS + SECONDS_A_CASE * (len(names) or len(CASES)),
    )


def run_peers(series: str) -> None:
    """Run the corpus under the other tools, on one kernel."""
    kernel = find_kernel(series)
    results = RESULTS / release_of(kernel) / "peers"
    corpus, keeper = build_unit(CORPUS, kernel)
    (results.parent / "corpus").write_text(str(corpus))
    in_guest(
        kernel, results, ["bench.accuracy.peers_guest", results, corpus, keeper], PEERS_SECONDS
    )


def in_guest(kernel: Path, results: Path, module: Sequence[object], timeout_s: float) -> None:
    """Run a module of this package in the guest, which may write to ``results``."""
    results.mkdir(parents=True, exist_ok=True)
    result = boot(
        kernel,
        [sys.executable, "-m", *(str(word) for word in module)],
        rw_dirs=[results],
        cwd=TOP,
        timeout_s=timeout_s,
        stdout=lambda data: (sys.stdout.write(data.decode(errors="replace")), None)[1],
        stderr=lambda data: (sys.stderr.write(data.decode(errors="replace")), None)[1],
    )
    if result.status != 0:
        print(f"{release_of(kernel)}: {result.failure or f'status {result.status}'}")


def read(results: Path) -> list[Score]:
    """Score the records of one kernel, in the order of the cases."""
    return [
        score(case, json.loads(record.read_text()))
        for case in CASES
        if (record := results / f"{case.name}.json").exists()
    ]


def read_peers(results: Path) -> list[peers.PeerScore]:
    """Score what the other tools left on one kernel."""
    places = results / "peers" / "places.json"
    if not places.exists():
        return []
    image = ModuleImage(Path((results / "corpus").read_text()))
    region, offset = image.section_offsets[".text"]
    loads = {place - offset for case in json.loads(places.read_text()).values() for place in case}

    def resolve(address: int) -> frozenset[str]:
        inside = (address - base for base in loads)
        named = (
            image.resolve(region, at).symbol for at in inside if 0 < at <= image.text_size(region)
        )
        return frozenset(name.split(".")[0] for name in named if name)

    leaked = peers.truth(CASES)
    tools = (("memleak-bpfcc", peers.memleak_stacks), ("kmemleak", peers.kmemleak_stacks))
    return [
        peers.score(name, read(said.read_text()), resolve, leaked)
        for name, read in tools
        if (said := places.parent / f"{name.removesuffix('-bpfcc')}.txt").exists()
    ]


def main() -> int:
    """Run and render, or only render."""
    parser = argparse.ArgumentParser(prog="bench.accuracy", description=__doc__)
    parser.add_argument("--kernel", action="append", help="series to run on; all if not given")
    parser.add_argument("--render", action="store_true", help="only write the page")
    parser.add_argument("case", nargs="*", help="cases to run; all if not given")
    chosen = parser.parse_args()
    if not chosen.render:
        for series in chosen.kernel or SERIES:
            if chosen.case != ["peers"]:
                run(series, chosen.case)
            if chosen.case in ([], ["peers"]):
                run_peers(series)
    scores = {place.name: read(place) for place in sorted(RESULTS.glob("*/"))}
    others = {place.name: read_peers(place) for place in sorted(RESULTS.glob("*/"))}
    text = page.render(scores, others, expected=len(CASES))
    (TOP / "docs" / "accuracy.md").write_text(text)
    print(page.summary(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
