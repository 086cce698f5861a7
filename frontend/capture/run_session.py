"""Bracket a command: what it makes the kernel allocate, and what stays after it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kleak.capture.engine.events import plan_here
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.records import Limits
from kleak.capture.engine.sampling import WALK_EVERY, Growth, outstanding_by_call_site
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel, read_kernel_table
from kleak.capture.machine.settle import BETWEEN_CYCLES, patience_at_the_end, settle
from kleak.capture.read_session import cut_off, read_session
from kleak.capture.scope import NamedScope
from kleak.capture.target.processes import CommandFailedError, ProcessTree
from kleak.capture.witnesses.kmemleak import Kmemleak
from kleak.capture.witnesses.observer import Observer, Recorder
from kleak.errors import (
    KleakError,
    StoppedError,
    StoppedWaitingError,
    TargetError,
    UnsupportedError,
)
from kleak.model.session import Cycle, Session, Trust
from kleak.progress import Progress
from kleak.symbols.kernel_table import KernelTable
from kleak.symbols.symboliser import Symboliser


@dataclass(frozen=True, slots=True)
class CommandRun:
    """What to run, how often, and what counts.

    ``by_process``: only what the command's process tree allocates. ``tree_patience_s``: how long
    to wait for the rest of the tree, once the command itself ended. ``keep`` outstanding
    allocations of a site are kept. ``kmemleak``: ask it, where the kernel has it. ``walk_every``:
    in a scope of everything or of own calls, one stack in so many is walked.
    """

    command: tuple[str, ...]
    scope: NamedScope
    by_process: bool
    repeat: int
    tree_patience_s: float
    headers: str | None
    limits: Limits
    keep: int
    kmemleak: bool = True
    walk_every: int = WALK_EVERY


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
    scope = run.scope.find(table)
    plan = plan_here(table, modules=False, processes=True)
    tracer = Tracer(
        plan,
        find_headers(run.headers),
        symbols=scope.symbols,
        loaded=scope.loaded,
        by_process=run.by_process,
        own_calls=run.scope.own_calls,
        limits=run.limits,
        walk_every=run.walk_every,
    )
    progress.say("compiling and attaching")
    observer = Observer(run.scope.names, run.repeat)
    tracer.compile()
    observer.begin()  # not earlier: compiling fills the caches again
    with tracer, observer:
        return _Capture(run, tracer, table, progress, recorder, observer).run_all()


class _Capture:
    """One capture in progress."""

    def __init__(
        self,
        run: CommandRun,
        tracer: Tracer,
        table: KernelTable,
        progress: Progress,
        recorder: Recorder,
        observer: Observer,
    ) -> None:
        self._run = run
        self._tracer = tracer
        self._tree = ProcessTree(tracer)
        self._symboliser = Symboliser(table)
        self._progress = progress
        self._recorder = recorder
        self._kmemleak = Kmemleak(wanted=run.kmemleak)
        self._observer = observer
        self._target = run.scope.target
        self._growth = Growth(tracer)
        self._cycles: list[Cycle] = []
        self._ended = 0
        self._notes: list[str] = []

    def run_all(self) -> tuple[Session, KleakError | None]:
        """Run every cycle; return what was seen and what ended it early."""
        with self._kmemleak:
            failure = self._run_cycles()
        self._progress.say("reading the result")
        session = self._session(failure, finished=True)
        try:
            self._recorder.save(session)
        except UnsupportedError as error:
            failure = failure or error
        return session, failure

    def _run_cycles(self) -> KleakError | None:
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
        ended_at = time.monotonic()
        try:
            settle(self._tracer.outstanding_count, patience, self._progress, "end")
            if not isinstance(failure, StoppedError):
                self._kmemleak.ask(self._tracer, ended_at, self._progress)
        except KeyboardInterrupt:
            failure = failure or StoppedWaitingError("interrupted while waiting for late frees")
        self._sample("end", 0)
        return failure

    def _run_cycle(self, index: int) -> None:
        doing = f"run {index} of {self._run.repeat}"
        self._progress.say(doing)
        self._progress.done()
        started = time.monotonic_ns()
        failure: str | None = None
        self._tracer.count_allocations(True, cycle=index)
        try:
            self._run_command(index)
        except CommandFailedError as error:
            failure = str(error)
            self._ended = index
            raise
        finally:
            self._tracer.count_allocations(False)
            self._cycles.append(Cycle(index, started, time.monotonic_ns(), failure))
        self._sample("unloaded", index)
        settle(self._tracer.outstanding_count, BETWEEN_CYCLES, self._progress, doing)
        self._sample("settled", index)
        self._ended = index
        call_sites = self._tracer.call_sites()
        if call_sites is not None:
            self._growth.note(outstanding_by_call_site(self._tracer.totals(), call_sites))
        self._recorder.save(self._session(None, finished=False))

    def _run_command(self, index: int) -> None:
        """Run the command, and wait for the rest of its tree."""
        process = self._tree.start(self._run.command, index)
        status = self._tree.wait_for_command(process)
        if status != 0:
            raise CommandFailedError(self._run.command[0], status)
        self._progress.say(
            f"run {index} of {self._run.repeat}: waiting for the command's process tree"
        )
        if not self._tree.wait_for_end(index, self._run.tree_patience_s):
            self._notes.append(
                f"run {index}: processes of the command that had not ended "
                f"{self._run.tree_patience_s:g} s after it, and hold what they hold: "
                + self._tree.describe_rest(index)
            )

    def _save_beginning(self) -> None:
        """Save that the capture began: what ends it in the first cycle leaves that much."""
        self._sample("start", 0)
        about = self._observer.describe((), (), finished=False)
        self._recorder.save(Session(read_kernel(), self._target, (), (), Trust(), None, about))

    def _sample(self, when: str, cycle: int) -> None:
        self._observer.sample(when, cycle, self._tracer.totals())

    def _session(self, failure: KleakError | None, *, finished: bool) -> Session:
        notes = [*self._notes]
        if failure is not None:
            notes.append(f"ended in cycle {len(self._cycles)}: {failure}")
        if self._tree.refused:
            notes.append(f"{self._tree.refused} processes of the command were not followed")
        return read_session(
            self._tracer,
            self._target,
            self._cycles,
            self._symboliser.resolve,
            self._observer,
            finished=finished,
            kmemleak=self._kmemleak.result,
            keep=self._run.keep,
            era_of=self._symboliser.era,
            cut=cut_off(self._run.repeat - self._ended, failure) if finished else None,
            notes=notes,
        )
