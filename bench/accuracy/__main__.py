"""``make accuracy``: run the corpus on Debian's kernels in virtual machines and publish the score.

With --render nothing is run: docs/accuracy.md is written from what the last runs left in build/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.accuracy import page
from bench.accuracy.score import Score, score
from kleak.vm import boot, find_kernel, release_of
from tests.build_modules import TOP, build_unit
from tests.corpus import CASES

SERIES = ("6.1", "6.12")
RESULTS = TOP / "build" / "accuracy"
SECONDS_A_CASE = 120.0
BOOT_SECONDS = 600.0


def run(series: str, names: Sequence[str]) -> None:
    """Run the cases on one kernel. The records stay in build/accuracy/RELEASE."""
    kernel = find_kernel(series)
    results = RESULTS / release_of(kernel)
    if not names and results.exists():
        shutil.rmtree(results)
    results.mkdir(parents=True, exist_ok=True)
    corpus, keeper = build_unit(TOP / "tests" / "modules" / "corpus", kernel)
    command = [sys.executable, "-m", "bench.accuracy.guest", results, corpus, keeper, *names]
    result = boot(
        kernel,
        [str(word) for word in command],
        rw_dirs=[results],
        cwd=TOP,
        timeout_s=BOOT_SECONDS + SECONDS_A_CASE * (len(names) or len(CASES)),
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


def main() -> int:
    """Run and render, or only render."""
    parser = argparse.ArgumentParser(prog="bench.accuracy", description=__doc__)
    parser.add_argument("--kernel", action="append", help="series to run on; all if not given")
    parser.add_argument("--render", action="store_true", help="only write the page")
    parser.add_argument("case", nargs="*", help="cases to run; all if not given")
    chosen = parser.parse_args()
    if not chosen.render:
        for series in chosen.kernel or SERIES:
            run(series, chosen.case)
    scores = {place.name: read(place) for place in sorted(RESULTS.glob("*/")) if place.is_dir()}
    text = page.render(scores, expected=len(CASES))
    (TOP / "docs" / "accuracy.md").write_text(text)
    print(page.summary(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
