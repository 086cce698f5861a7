"""Bracket a command: what it makes kernel functions allocate, and what stays after it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kleak.capture.circumstances import Observer, Recorder
from kleak.capture.events import make_plan, read_btf
from kleak.capture.headers import find_headers
from kleak.capture.kernel_state import read_kernel, read_kernel_table
from kleak.capture.recording import read_session
from kleak.capture.records import Limits, SymbolScope
from kleak.capture.settle import BETWEEN_CYCLES, patience_at_the_end, settle
from kleak.capture.tracer import Tracer
from kleak.errors import KleakError, StoppedError, TargetError, UnsupportedError, UsageError
from kleak.model import Cycle, Session, Target, Trust
from kleak.progress import Progress
from kleak.symbols.kernel_table import KernelTable, TextRange
from kleak.symbols.symboliser import Symboliser


@dataclass(frozen=True, slots=True)
class CommandRun:
    """What to run, how often, and which kernel functions count: globs of their names.

    ``keep`` outstanding allocations of a site are kept.
    """

    command: tuple[str, ...]
    scope: tuple[str, ...]
    repeat: int
    headers: str | None
    limits: Limits
    keep: int


def find_scope(table: KernelTable, globs: Sequence[str]) -> SymbolScope:
    """Return the code of the kernel functions that match. ``*`` is all of the kernel's text.

    Raises UsageError for a glob that matches nothing.
    """
    if "*" in globs:
        return SymbolScope((table.text,), everything=True)
    ranges: list[TextRange] = []
    for glob in globs:
        found = table.ranges_of_glob(glob)
        if not found:
            raise UsageError(f"no function of this kernel matches {glob}")
        ranges.extend(found)
    return SymbolScope(tuple(sorted(ranges, key=lambda text: text.start)))


def trace_command(
    run: CommandRun, progress: Progress, recorder: Recorder
) -> tuple[Session, KleakError | None]:
    """Run the command ``repeat`` times, each a cycle, and return what was seen.

    ``recorder`` gets it after each cycle. A command that fails, or Ctrl-C, ends the cycles; what
    was seen so far is returned with the reason. Raises UnsupportedError where this machine cannot
    trace, UsageError for the scope.
    """
    progress.say("reading the kernel's types and symbols")
    table = read_kernel_table()
    scope = find_scope(table, run.scope)
    plan = make_plan(read_btf(), table, modules=False)
    tracer = Tracer(plan, find_headers(run.headers), symbols=scope, limits=run.limits)
    progress.say("compiling and attaching")
    with tracer:
        return _Capture(run, tracer, table, progress, recorder).run_all()


class _Capture:
    """One capture in progress."""

    def __init__(
        self,
        run: CommandRun,
        tracer: Tracer,
        table: KernelTable,
        progress: Progress,
        recorder: Recorder,
    ) -> None:
        self._run = run
        self._tracer = tracer
        self._resolve = Symboliser(table).resolve
        self._progress = progress
        self._recorder = recorder
        self._observer = Observer(run.scope, run.repeat)
        self._target = Target("symbols", ",".join(run.scope))
        self._cycles: list[Cycle] = []

    def run_all(self) -> tuple[Session, KleakError | None]:
        """Run every cycle; return what was seen and what ended it early."""
        failure: KleakError | None = None
        patience = patience_at_the_end(sees_kfree_rcu=self._tracer.sees_kfree_rcu)
        self._save_beginning()
        try:
            for index in range(1, self._run.repeat + 1):
                self._run_cycle(index)
        except (TargetError, UnsupportedError) as error:
            failure = error
        except KeyboardInterrupt:
            failure, patience = StoppedError("interrupted"), BETWEEN_CYCLES
        try:
            settle(self._tracer.outstanding_count, patience, self._progress, "end")
        except KeyboardInterrupt:
            failure = failure or StoppedError("interrupted while waiting for late frees")
        self._sample("end", 0)
        self._progress.say("reading the result")
        session = self._session(failure, finished=True)
        try:
            self._recorder.save(session)
        except UnsupportedError as error:
            failure = failure or error
        return session, failure

    def _run_cycle(self, index: int) -> None:
        started = time.monotonic_ns()
        self._progress.done()
        try:
            _run_once(self._tracer, self._run.command, index)
        finally:
            self._tracer.count_allocations(False)
            self._cycles.append(Cycle(index, started, time.monotonic_ns()))
        self._sample("unloaded", index)
        settle(self._tracer.outstanding_count, BETWEEN_CYCLES, self._progress, f"run {index}")
        self._sample("settled", index)
        self._recorder.save(self._session(None, finished=False))

    def _save_beginning(self) -> None:
        """Save that the capture began: what ends it in the first cycle leaves that much."""
        self._sample("start", 0)
        about = self._observer.describe(self._target, (), (), finished=False)
        self._recorder.save(Session(read_kernel(), self._target, (), (), Trust(), None, about))

    def _sample(self, when: str, cycle: int) -> None:
        self._observer.sample(when, cycle, self._tracer.totals())

    def _session(self, failure: KleakError | None, *, finished: bool) -> Session:
        notes = [] if failure is None else [f"ended in cycle {len(self._cycles)}: {failure}"]
        return read_session(
            self._tracer,
            self._target,
            self._cycles,
            self._resolve,
            self._observer,
            finished=finished,
            keep=self._run.keep,
            notes=notes,
        )


def _run_once(tracer: Tracer, command: Sequence[str], cycle: int) -> None:
    """Run the command with allocations counting. Its input, output and signals are its own."""
    tracer.count_allocations(True, cycle=cycle)
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        raise UsageError(f"{command[0]}: {error.strerror}") from error
    try:
        status = process.wait()
    except KeyboardInterrupt:
        # The terminal sent it to the command too; kill -TERM of kleak alone did not.
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if status < 0:
        raise TargetError(f"{command[0]} died of {signal.Signals(-status).name}")
    if status != 0:
        raise TargetError(f"{command[0]} failed with exit status {status}")
