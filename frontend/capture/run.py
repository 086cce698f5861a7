"""Bracket a command: what it makes the kernel allocate, and what stays after it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kleak.capture.engine.sampling import Growth, outstanding_by_call_site
from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Capture, Driver, Outcome, Tracing, capture
from kleak.capture.scope import NamedScope
from kleak.capture.target.processes import CommandFailedError, ProcessTree
from kleak.capture.tracers import tracer_of_scope
from kleak.capture.witnesses.observer import Observer, Recorder
from kleak.errors import KleakError
from kleak.model.session import Cycle
from kleak.progress import Progress
from kleak.symbols.symboliser import Symboliser


@dataclass(frozen=True, slots=True)
class CommandRun:
    """What to run, how often, and what counts.

    ``by_process``: only what the command's process tree allocates. ``tree_patience_s``: how long
    to wait for the rest of the tree, once the command itself ended.
    """

    command: tuple[str, ...]
    scope: NamedScope
    by_process: bool
    repeat: int
    tree_patience_s: float
    tracing: Tracing


def trace_command(run: CommandRun, progress: Progress, recorder: Recorder) -> Outcome:
    """Run the command ``repeat`` times, each a cycle, and return what was seen; see
    :func:`kleak.capture.lifecycle.capture`.

    A command that fails ends the cycles. Raises UnsupportedError where this machine cannot trace,
    UsageError for the scope.
    """
    tracer, table = tracer_of_scope(
        run.scope, run.tracing, progress, processes=True, by_process=run.by_process
    )
    observer = Observer(run.scope.names, run.repeat)
    tracer.compile()
    observer.begin()  # not earlier: compiling fills the caches again
    with tracer:
        driver = CommandCycles(run, tracer, Symboliser(table), observer)
        return capture(driver, tracer, progress, recorder, run.tracing)


class CommandCycles(Driver):
    """Runs the command."""

    def __init__(
        self, run: CommandRun, tracer: Tracer, names: Symboliser, observer: Observer
    ) -> None:
        """``tracer`` is attached."""
        super().__init__(run.scope.target, observer)
        self._run = run
        self._tree = ProcessTree(tracer)
        self._names = names
        self._growth = Growth(tracer)
        self._cycles: list[Cycle] = []
        self._ended = 0
        self._notes: list[str] = []

    def run_cycles(self, capture: Capture) -> None:
        """See Driver."""
        for index in range(1, self._run.repeat + 1):
            self._run_cycle(capture, index)

    def cycles(self) -> list[Cycle]:
        """See Driver."""
        return self._cycles

    def names(self) -> Symboliser:
        """See Driver."""
        return self._names

    def place(self) -> str:
        """See Driver."""
        return f"cycle {len(self._cycles)} of {self._run.repeat}"

    def cut_off(self, failure: KleakError | None) -> int:
        """See Driver."""
        return self._run.repeat - self._ended

    def notes(self) -> list[str]:
        """See Driver."""
        refused = self._tree.refused
        if not refused:
            return list(self._notes)
        return [*self._notes, f"{refused} processes of the command were not followed"]

    def _run_cycle(self, capture: Capture, index: int) -> None:
        doing = f"run {index} of {self._run.repeat}"
        capture.progress.say(doing)
        capture.progress.done()
        started = time.monotonic_ns()
        failure: str | None = None
        capture.tracer.count_allocations(True, cycle=index)
        try:
            self._run_command(capture, index)
        except CommandFailedError as error:
            failure = str(error)
            self._ended = index
            raise
        finally:
            capture.tracer.count_allocations(False)
            self._cycles.append(Cycle(index, started, time.monotonic_ns(), failure))
        capture.sample("unloaded", index)
        capture.settle(doing)
        capture.sample("settled", index)
        self._ended = index
        call_sites = capture.tracer.call_sites()
        if call_sites is not None:
            self._growth.note(outstanding_by_call_site(capture.tracer.totals(), call_sites))
        capture.save()

    def _run_command(self, capture: Capture, index: int) -> None:
        """Run the command, and wait for the rest of its tree."""
        process = self._tree.start(self._run.command, index)
        status = self._tree.wait_for_command(process)
        if status != 0:
            raise CommandFailedError(self._run.command[0], status)
        capture.progress.say(
            f"run {index} of {self._run.repeat}: waiting for the command's process tree"
        )
        if not self._tree.wait_for_end(index, self._run.tree_patience_s):
            self._notes.append(
                f"run {index}: processes of the command that had not ended "
                f"{self._run.tree_patience_s:g} s after it, and hold what they hold: "
                + self._tree.describe_rest(index)
            )
