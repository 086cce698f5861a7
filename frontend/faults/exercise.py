"""The exercise of a cycle in which something fails: it may fail, it may hang."""

from __future__ import annotations

import os
import signal
import subprocess

from kleak.capture.target.exercises import Exercise
from kleak.errors import TargetError

MOST_OUTPUT_BYTES = 4096


def run_exercise(exercise: Exercise, limit_s: float | None) -> str:
    """Run it; return what it said where it failed, "" where it did not.

    A shell command that takes longer than ``limit_s``, if given, is killed, with TimeoutError.
    """
    if exercise.command is None:
        try:
            exercise.run()
        except TargetError as error:
            return str(error)
        return ""
    process = subprocess.Popen(
        ["/bin/sh", "-c", exercise.command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=limit_s)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise TimeoutError(f"the exercise has not returned after {limit_s:.0f} s") from None
    if process.returncode == 0:
        return ""
    lines = said[-MOST_OUTPUT_BYTES:].decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    status = process.returncode
    how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    return f"{last} ({how})" if last else how
