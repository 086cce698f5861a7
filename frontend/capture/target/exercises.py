"""What is done with the modules under test while they are loaded."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from kleak.capture.target.net_plan import NetPlan
from kleak.capture.target.netlink import run_plan
from kleak.errors import TargetError


@dataclass(frozen=True, slots=True)
class Exercise:
    """What to do with the modules while they are loaded. ``what`` is shown meanwhile; ``run``
    raises TargetError where it fails. The kernel loads the modules ``needs`` for it by itself.
    """

    what: str
    run: Callable[[], None]
    needs: tuple[str, ...] = ()


def net_exercise(plan: NetPlan) -> Exercise:
    """Return the exercise that a plan for network devices is."""
    return Exercise(f"net plan {plan.name}", lambda: run_plan(plan), plan.needs)


def shell_exercise(command: str) -> Exercise:
    """Return the exercise that a line for the shell is, which the user typed himself."""
    return Exercise(command, lambda: _run_in_shell(command))


def _run_in_shell(command: str) -> None:
    """Run it with its output to standard error, so that a report on standard output stays whole.

    Raises TargetError where it fails; on KeyboardInterrupt its whole process group is ended.
    """
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=2,
        start_new_session=True,
    )
    try:
        status = process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if status < 0:
        raise TargetError(f"the exercise command died of {signal.Signals(-status).name}")
    if status != 0:
        raise TargetError(f"the exercise command failed with exit status {status}")
