"""What is done with the modules under test while they are loaded."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kleak.capture.target.net_plan import NetPlan
from kleak.capture.target.netlink import run_plan
from kleak.errors import TargetError
from kleak.files.names import readable


@dataclass(frozen=True, slots=True)
class Exercise:
    """What to do with the modules while they are loaded. ``what`` is shown meanwhile; ``run``
    raises TargetError where it fails. The kernel loads the modules ``needs`` for it by itself.
    ``left_running`` names the processes that it started and that have not ended.
    """

    what: str
    run: Callable[[], None]
    needs: tuple[str, ...] = ()
    left_running: Callable[[], tuple[str, ...]] = tuple


def net_exercise(plan: NetPlan) -> Exercise:
    """Return the exercise that a plan for network devices is."""
    return Exercise(f"net plan {plan.name}", lambda: run_plan(plan), plan.needs)


def shell_exercise(command: str) -> Exercise:
    """Return the exercise that a line for the shell is, which the user typed himself."""
    line = _ShellLine(command)
    return Exercise(command, line.run, left_running=line.left_running)


class _ShellLine:
    """A line for the shell, run in a session of its own each time."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._sessions: set[int] = set()

    def run(self) -> None:
        """Run it, with its output to standard error: a report on standard output stays whole.

        Raises TargetError where it fails; on KeyboardInterrupt its whole process group is ended.
        """
        process = subprocess.Popen(
            ["/bin/sh", "-c", self._command],
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,
        )
        self._sessions.add(process.pid)
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

    def left_running(self) -> tuple[str, ...]:
        """Name the processes of its sessions: "sleep 411"."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                stat = (place / "stat").read_text(errors="replace")
            except OSError:  # it has ended
                continue
            name, _, fields = stat.partition("(")[2].rpartition(")")
            # State, parent, group, session. A zombie has closed all that it had.
            state, _, _, session = fields.split()[:4]
            if int(session) in self._sessions and state != "Z":
                found.append(f"{readable(name)} {place.name}")
        return tuple(sorted(found))
