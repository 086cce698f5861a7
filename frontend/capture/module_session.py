"""The main job: load a module, exercise it, unload it, again and again, and watch what stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from kleak.capture.engine.events import plan_here
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.records import Limits
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.machine.settle import BETWEEN_CYCLES, Patience, patience_at_the_end, settle
from kleak.capture.module_reader import ModuleReader
from kleak.capture.read_session import cut_off
from kleak.capture.target.modules import ModuleLoader, ModuleTarget, Timeouts, run_exercise
from kleak.capture.target.net_plan import NetPlan
from kleak.capture.target.netlink import run_plan
from kleak.capture.witnesses.kmemleak import Kmemleak
from kleak.capture.witnesses.observer import Recorder
from kleak.errors import (
    KleakError,
    StoppedError,
    StoppedWaitingError,
    TargetError,
    UnsupportedError,
)
from kleak.model.session import Session
from kleak.progress import Progress

MAX_MODULES = 8
"""Modules at a time: each is looked for in each frame of a stack."""


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
    """Return the exercise that a line for the shell is."""
    return Exercise(command, lambda: run_exercise(command))


@dataclass(frozen=True, slots=True)
class Tracing:
    """How to trace, whoever loads the modules. ``headers`` names a header tree. ``keep``
    outstanding allocations of a site are kept. ``kmemleak``: ask it, where the kernel has it.
    """

    headers: str | None
    limits: Limits
    keep: int
    kmemleak: bool = True


@dataclass(frozen=True, slots=True)
class ModuleRun:
    """What to do. ``targets`` are loaded in this order. With ``init_may_fail`` a load whose init
    fails is a cycle too.
    """

    targets: tuple[ModuleTarget, ...]
    cycles: int
    exercises: tuple[Exercise, ...]
    init_may_fail: bool
    timeouts: Timeouts
    tracing: Tracing


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a capture saw, and what ended it early, if anything did."""

    session: Session
    failure: KleakError | None


def trace_module(run: ModuleRun, progress: Progress, recorder: Recorder) -> Outcome:
    """Run the cycles and return what was seen; ``recorder`` gets it after each cycle.

    A failure of the target, or Ctrl-C, ends the cycles but not the capture: what was seen so
    far is returned with it. Raises UnsupportedError where this machine cannot trace at all.
    """
    with module_tracer(run.targets, run.tracing, progress) as tracer:
        return capture_module(run, tracer, progress, recorder)


def module_tracer(
    targets: tuple[ModuleTarget, ...], tracing: Tracing, progress: Progress
) -> Tracer:
    """Return a tracer for ``targets``, not attached yet."""
    progress.say("reading the kernel's types and symbols")
    plan = plan_here(read_kernel_table(), modules=True)
    progress.say("compiling and attaching")
    return Tracer(
        plan,
        find_headers(tracing.headers),
        modules=tuple(target.name for target in targets),
        limits=tracing.limits,
    )


def capture_module(
    run: ModuleRun, tracer: Tracer, progress: Progress, recorder: Recorder
) -> Outcome:
    """Run the cycles under a tracer that is attached, and fresh or reset to these modules.

    As trace_module(): many runs may share the programs that one tracer has compiled.
    """
    capture = _Capture(run, tracer, progress, recorder)
    with capture.observer:
        with capture.kmemleak:
            failure = capture.run_cycles()
        progress.say("reading the result")
        session = capture.session(failure)
    try:
        recorder.save(session)
    except UnsupportedError as error:
        failure = failure or error
    return Outcome(session, failure)


class _Capture:
    """One capture in progress."""

    def __init__(
        self,
        run: ModuleRun,
        tracer: Tracer,
        progress: Progress,
        recorder: Recorder,
    ) -> None:
        self._run = run
        self._tracer = tracer
        self._progress = progress
        self._recorder = recorder
        self.kmemleak = Kmemleak(wanted=run.tracing.kmemleak)
        self._reader = ModuleReader(
            tracer,
            run.targets,
            planned_cycles=run.cycles * len(run.targets),
            keep=run.tracing.keep,
        )
        self._names = ", ".join(target.name for target in run.targets)
        self._cycle = 1
        self._ended = 0
        self.observer = self._reader.observer

    def run_cycles(self) -> KleakError | None:
        """Load, exercise, unload; settle. Returns what ended it early."""
        failure: KleakError | None = None
        patience = patience_at_the_end(sees_kfree_rcu=self._tracer.sees_kfree_rcu)
        self._reader.save_beginning(self._recorder)
        try:
            needs = [name for exercise in self._run.exercises for name in exercise.needs]
            with ModuleLoader(self._run.targets, self._run.timeouts, needs) as loader:
                for index in range(1, self._run.cycles + 1):
                    self._cycle = index
                    self._run_cycle(loader, index)
        except (TargetError, UnsupportedError) as error:
            failure = error
        except KeyboardInterrupt:
            failure = StoppedError("interrupted")
            patience = BETWEEN_CYCLES
        unloaded_at = time.monotonic()
        try:
            self._settle(patience, "end")
            if not isinstance(failure, StoppedError):
                self.kmemleak.ask(self._tracer, unloaded_at, self._progress)
        except KeyboardInterrupt:
            failure = failure or StoppedWaitingError("interrupted while waiting for late frees")
        self._reader.sample("end", 0)
        return failure

    def session(self, failure: KleakError | None) -> Session:
        """Read what there is at the end."""
        notes = []
        if failure is not None:
            notes.append(f"ended in cycle {self._cycle} of {self._run.cycles}: {failure}")
        missing = (self._run.cycles - self._ended) * len(self._run.targets)
        return self._reader.session(
            notes, finished=True, kmemleak=self.kmemleak.result, cut=cut_off(missing, failure)
        )

    def _run_cycle(self, loader: ModuleLoader, index: int) -> None:
        doing = f"cycle {index} of {self._run.cycles}"
        self._progress.say(f"{doing}: loading {self._names}")
        before = len(self._tracer.loads())
        try:
            loader.load()
        except TargetError as error:
            loads = len(self._tracer.loads())
            if loads == before:  # no load event: its init never ran, so this is no cycle
                raise
            self._reader.note_failure(loads, str(error))
            if not self._run.init_may_fail:
                raise
            self._reader.notice_modules()
            loader.unload()
        else:
            self._reader.notice_modules()
            self._reader.sample("loaded", index)
            for exercise in self._run.exercises:
                self._progress.say(f"{doing}: {exercise.what}")
                exercise.run()
            self._progress.say(f"{doing}: unloading {self._names}")
            loader.unload()
            self._reader.sample("unloaded", index)
        self._settle(BETWEEN_CYCLES, doing)
        self._reader.sample("settled", index)
        self._ended = index
        self._progress.say(f"{doing}: saving")
        self._recorder.save(self._reader.session(finished=False))

    def _settle(self, patience: Patience, doing: str) -> None:
        settle(self._tracer.outstanding_count, patience, self._progress, doing)
