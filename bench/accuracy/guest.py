"""Runs cases of the corpus in the guest, all under one tracer, and writes what kleak reports.

Arguments: the directory for the results, the corpus module, the keeper module, names of cases
(all without any). Each case leaves NAME.json there, written when it is over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from kleak.analysis.judge import judge
from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Tracing
from kleak.capture.module import ModuleRun, capture_module
from kleak.capture.target.exercises import shell_exercise
from kleak.capture.target.modules import Timeouts, find_target
from kleak.capture.tracers import tracer_of_modules
from kleak.errors import KleakError
from kleak.model.session import Session
from kleak.progress import Lines, Progress
from kleak.render import report_json
from tests.support.corpus import CASES, Case


def run_of(case: Case, corpus: Path) -> ModuleRun:
    """Return how kleak is to run a case."""
    if case.module is not None:
        target = find_target(case.module, case.parameters)
    else:
        target = find_target(str(corpus), case.parameters or (f"case={case.name}",))
    return ModuleRun(
        (target,),
        case.cycles,
        () if case.exercise is None else (shell_exercise(case.exercise),),
        case.init_may_fail,
        Timeouts(load=120.0, unload=120.0, busy=30.0),
        Tracing(),
    )


class _Forgets:
    """A recorder for captures that are judged at once."""

    def save(self, session: Session) -> None:
        """Keep nothing."""


def trace(case: Case, run: ModuleRun, tracer: Tracer, progress: Progress) -> dict[str, Any]:
    """Run one case and return its record."""
    started = time.monotonic()
    tracer.reset([target.name for target in run.targets])
    outcome = capture_module(run, tracer, progress, _Forgets())
    return {
        "name": case.name,
        "seconds": time.monotonic() - started,
        "failure": None if outcome.failure is None else str(outcome.failure),
        "report": report_json.document(judge(outcome.session)),
    }


def main() -> int:
    """Run the cases; one that fails does not stop the others."""
    results, corpus, keeper = (Path(argument).resolve() for argument in sys.argv[1:4])
    wanted = set(sys.argv[4:]) or {case.name for case in CASES}
    cases = [case for case in CASES if case.name in wanted]
    os.environ["PATH"] += ":/sbin:/usr/sbin"
    subprocess.run(["modprobe", "loop"], check=False)  # not all kernels have it
    progress = Lines()
    subprocess.run(["insmod", keeper], check=True)
    first = run_of(CASES[0], corpus)
    with tracer_of_modules(first.names, first.tracing, progress) as tracer:
        (results / "notes.json").write_text(
            json.dumps(
                {
                    "notes": tracer.notes,
                    "attached": {name: way.value for name, way in tracer.attachments.items()},
                }
            )
        )
        for case in cases:
            work = Path("/tmp/corpus") / case.name
            work.mkdir(parents=True)
            os.chdir(work)
            if case.keeper:
                subprocess.run(["rmmod", "corpus_keeper"], check=True)
                subprocess.run(["insmod", keeper], check=True)
            try:
                record = trace(case, run_of(case, corpus), tracer, progress)
            except (KleakError, OSError) as error:
                traceback.print_exc()
                record = {"name": case.name, "failure": str(error), "report": None}
            unfinished = results / f".{case.name}"
            unfinished.write_text(json.dumps(record))
            unfinished.rename(results / f"{case.name}.json")
            print(case.name, f"{record.get('seconds', 0):.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
