"""``make accuracy``: run the corpus on kernels in virtual machines and publish the score.

A whole run has the corpus once more under memleak-bpfcc, or kmemleak where the kernel has it; the
case "peers" is that alone. Two kernels run at a time.
With --render nothing is run: docs/accuracy.md is written from what the last runs left in build/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.accuracy import page, peers
from bench.accuracy.score import Ran, score
from kleak.symbols.module_image import ModuleImage
from kleak.vm.boot import boot
from kleak.vm.kernels import find_kernel, release_of
from tests.support.build_modules import TOP, build_unit
from tests.support.corpus import CASES, Case

SERIES = ("5.10", "6.1", "6.12", "7.3", "dev")
GUESTS_AT_A_TIME = 2
RESULTS = TOP / "build" / "accuracy"
CORPUS = TOP / "tests" / "modules" / "corpus"
SECONDS_A_CASE = 120.0
BOOT_SECONDS = 600.0
PEERS_SECONDS = 3600.0


def run_kernel(series: str, names: Sequence[str]) -> None:
    """Run what is wanted on one kernel. The records stay in build/accuracy/RELEASE."""
    if list(names) != ["peers"]:
        run(series, names)
    if not names or "peers" in names:
        run_peers(series)


def run(series: str, names: Sequence[str]) -> None:
    """Run the cases on one kernel, without those for which it has no module."""
    kernel = find_kernel(series)
    results = RESULTS / release_of(kernel)
    if not names and results.exists():
        shutil.rmtree(results)
    results.mkdir(parents=True, exist_ok=True)
    corpus, keeper = build_unit(CORPUS, kernel)
    known = corpus.read_bytes()
    absent = [
        case.name
        for case in CASES
        if not (has_case(known, case) if case.module is None else has_module(kernel, case.module))
    ]
    (results / "absent.json").write_text(json.dumps(absent))
    wanted = [
        case.name for case in CASES if (not names or case.name in names) and case.name not in absent
    ]
    if not names:
        (results / "commit").write_text(current_commit())
    in_guest(
        kernel,
        results,
        ["bench.accuracy.guest", results, corpus, keeper, *wanted],
        BOOT_SECONDS + SECONDS_A_CASE * len(wanted),
    )


def current_commit() -> str:
    """Return the commit that is checked out, "-dirty" behind it where files differ from it."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=TOP, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


def has_case(corpus: bytes, case: Case) -> bool:
    """Whether the corpus as it was built for a kernel has a case: some calls are not everywhere."""
    names = (word.removeprefix("case=") for word in case.parameters or (case.name,))
    return all(b"\0" + name.encode() + b"\0" in corpus for name in names)


def has_module(kernel: Path, module: str) -> bool:
    """Whether a kernel has a module of its own."""
    base = kernel.parent.parent
    answer = subprocess.run(
        ["/sbin/modinfo", "-b", base, "-k", release_of(kernel), "-F", "filename", module],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return answer.returncode == 0 and "(builtin)" not in answer.stdout


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
    release = release_of(kernel)

    def show(data: bytes) -> None:
        sys.stdout.write(data.decode(errors="replace").replace("\n", f" ({release})\n"))
        sys.stdout.flush()

    result = boot(
        kernel,
        [sys.executable, "-m", *(str(word) for word in module)],
        rw_dirs=[results],
        cwd=TOP,
        timeout_s=timeout_s,
        stdout=show,
        stderr=show,
    )
    if result.status != 0:
        print(f"{release}: {result.failure or f'status {result.status}'}", flush=True)


def read(results: Path) -> Ran:
    """Score the records of one kernel, in the order of the cases."""
    scores = [
        score(case, json.loads(record.read_text()))
        for case in CASES
        if (record := results / f"{case.name}.json").exists()
    ]
    absent = results / "absent.json"
    notes = results / "notes.json"
    commit = results / "commit"
    return Ran(
        scores,
        tuple(read_peers(results)),
        tuple(json.loads(absent.read_text())) if absent.exists() else (),
        json.loads(notes.read_text())["attached"] if notes.exists() else {},
        commit.read_text() if commit.exists() else "",
    )


def read_peers(results: Path) -> Iterator[peers.PeerScore]:
    """Score what the other tools left on one kernel."""
    places = results / "peers" / "places.json"
    if not places.exists():
        return
    image = ModuleImage(Path((results / "corpus").read_text()))
    region, offset = image.section_offsets()[".text"]
    loads = {place - offset for case in json.loads(places.read_text()).values() for place in case}

    def resolve(address: int) -> frozenset[str]:
        inside = (address - base for base in loads)
        named = (
            image.resolve(region, at).symbol for at in inside if 0 < at <= image.text_size(region)
        )
        return frozenset(name.split(".")[0] for name in named if name)

    leaked = peers.truth(CASES)
    tools = (("memleak-bpfcc", peers.memleak_stacks), ("kmemleak", peers.kmemleak_stacks))
    for name, stacks_of in tools:
        said = places.parent / f"{name.removesuffix('-bpfcc')}.txt"
        if said.exists():
            yield peers.score(name, stacks_of(said.read_text()), resolve, leaked)


def main() -> int:
    """Run and render, or only render."""
    parser = argparse.ArgumentParser(prog="bench.accuracy", description=__doc__)
    parser.add_argument("--kernel", action="append", help="series to run on; all if not given")
    parser.add_argument("--render", action="store_true", help="only write the page")
    parser.add_argument("case", nargs="*", help="cases to run; all if not given")
    chosen = parser.parse_args()
    if not chosen.render:
        with ThreadPoolExecutor(max_workers=GUESTS_AT_A_TIME) as guests:
            series = chosen.kernel or SERIES
            for _ in guests.map(lambda one: run_kernel(one, chosen.case), series):
                pass
    ran = {place.name: read(place) for place in sorted(RESULTS.glob("*/"))}
    (TOP / "docs" / "accuracy.md").write_text(page.render(ran, expected=len(CASES)))
    print(page.summary(ran))
    return 0


if __name__ == "__main__":
    sys.exit(main())
