"""Runs the jobs of tests.guest inside the guest, one after the other. Standard library only.

Argument: the directory with ``jobs.json``, a list of {"name", "argv", "environment",
"timeout_s"}. Each job runs in DIRECTORY/NAME/files and leaves DIRECTORY/NAME/{stdout,stderr,
result.json}. ``result.json`` is written last: a job without one took the guest down with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DONE = 17
"""Exit status when all jobs were run, whatever came of them; an uncommon number, so that a test
of it is one of the status's way through."""


def run_job(job: dict[str, Any], directory: Path) -> None:
    """Run one job to its end or its time limit."""
    place = directory / job["name"]
    start = time.monotonic()
    with (place / "stdout").open("wb") as stdout, (place / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            job["argv"],
            cwd=place / "files",
            env={**os.environ, **job["environment"]},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(job["timeout_s"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = None
    result = {"status": status, "seconds": time.monotonic() - start}
    (place / "result.json").write_text(json.dumps(result), encoding="utf-8")


def main() -> int:
    """Run all jobs of the directory named by the first argument."""
    directory = Path(sys.argv[1])
    for job in json.loads((directory / "jobs.json").read_text(encoding="utf-8")):
        print(f"job {job['name']}", flush=True)
        run_job(job, directory)
    print("end of jobs", file=sys.stderr)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
