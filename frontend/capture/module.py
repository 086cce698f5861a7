"""The main job: load a module, exercise it, unload it, again and again, and watch what stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Capture, Outcome, Tracing, capture
from kleak.capture.machine.kernel_state import loaded_modules
from kleak.capture.module_loads import ModuleLoads
from kleak.capture.target.exercises import Exercise
from kleak.capture.target.modules import (
    ModuleLoader,
    ModuleTarget,
    Timeouts,
    check_dependencies,
)
from kleak.capture.target.references import PinnedError, describe_callers
from kleak.capture.tracers import attached, tracer_of_modules
from kleak.capture.witnesses.observer import Recorder
from kleak.errors import KleakError, TargetError
from kleak.model.session import Cycle
from kleak.progress import Progress

MAX_MODULES = 8
"""Modules at a time: each is looked for in each frame of a stack."""


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

    @property
    def names(self) -> Sequence[str]:
        """Names of the modules."""
        return [target.name for target in self.targets]


def trace_module(run: ModuleRun, progress: Progress, recorder: Recorder) -> Outcome:
    """Run the cycles and return what was seen; see :func:`kleak.capture.lifecycle.capture`.

    Raises TargetError where what the modules need is not there, UnsupportedError where this machine
    cannot trace at all.
    """
    check_dependencies(run.targets)
    with attached(tracer_of_modules(run.names, run.tracing, progress), progress) as tracer:
        return capture_module(run, tracer, progress, recorder)


def capture_module(
    run: ModuleRun, tracer: Tracer, progress: Progress, recorder: Recorder
) -> Outcome:
    """As trace_module(), under a tracer that is attached, and fresh or reset to these modules:
    many runs may share the programs that one tracer has compiled.
    """
    return capture(ModuleCycles(run, tracer), tracer, progress, recorder, run.tracing)


class ModuleCycles(ModuleLoads):
    """Loads, exercises and unloads."""

    def __init__(self, run: ModuleRun, tracer: Tracer) -> None:
        """Nothing is loaded yet."""
        super().__init__(tracer, run.targets, planned_cycles=run.cycles * len(run.targets))
        self._run = run
        self._cycle_now = 1
        self._ended = 0
        self._notes: list[str] = []

    def run_cycles(self, capture: Capture) -> None:
        """See Driver. A module that something holds is gone on with: the exercise is repeated."""
        self.notice_modules()
        needs = [name for exercise in self._run.exercises for name in exercise.needs]
        with ModuleLoader(self._run.targets, self._run.timeouts, needs) as loader:
            for index in range(1, self._run.cycles + 1):
                self._cycle_now = index
                try:
                    self._run_cycle(capture, loader, index)
                except PinnedError as pinned:
                    loader.leave()
                    self._go_on(capture, pinned)
                    raise

    def notes(self) -> list[str]:
        """See Driver."""
        return [*super().notes(), *self._notes]

    def place(self) -> str:
        """See Driver."""
        return f"cycle {self._cycle_now} of {self._run.cycles}"

    def cut_off(self, failure: KleakError | None) -> int:
        """See Driver."""
        return (self._run.cycles - self._ended) * len(self._run.targets)

    def _run_cycle(self, capture: Capture, loader: ModuleLoader, index: int) -> None:
        doing = self.place()
        capture.progress.say(f"{doing}: loading {self.title}")
        before = len(capture.tracer.loads())
        try:
            loader.load()
        except TargetError as error:
            loads = len(capture.tracer.loads())
            if loads == before:  # no load event: its init never ran, so this is no cycle
                raise
            self.note_failure(loads, str(error))
            if not self._run.init_may_fail:
                raise
            self.notice_modules()
            loader.unload()
        else:
            self.notice_modules()
            capture.sample("loaded", index)
            self._exercise(capture, doing)
            capture.progress.say(f"{doing}: unloading {self.title}")
            loader.unload()
            capture.sample("unloaded", index)
        self._end_cycle(capture, index)

    def _exercise(self, capture: Capture, doing: str) -> None:
        for exercise in self._run.exercises:
            capture.progress.say(f"{doing}: {exercise.what}")
            exercise.run()
        self.visitors.look()

    def _end_cycle(self, capture: Capture, index: int) -> None:
        """Wait for late frees, and keep what was seen."""
        doing = self.place()
        capture.settle(doing)
        capture.sample("settled", index)
        self._ended = index
        capture.progress.say(f"{doing}: saving")
        capture.save()

    def _go_on(self, capture: Capture, pinned: PinnedError) -> None:
        """Repeat the exercise with the modules as they are, in the cycles that are left.

        Not where a process of the exercise still runs: what that holds is no leak. Nor is there
        anything to repeat without one, nor where others of several modules are gone already.
        """
        first = self._cycle_now
        running = [name for one in self._run.exercises for name in one.left_running()]
        references = replace(pinned.references, processes=tuple(running))
        held = f"module {pinned.module} cannot be unloaded: held by {references.describe()}"
        held += describe_callers(capture.tracer.references(), pinned.module, self._caller)
        there = loaded_modules()
        if running or not self._run.exercises or any(n not in there for n in self._run.names):
            self._notes.append(held)
            return
        self._notes.append(
            f"{held}. It stays loaded: each later cycle repeats the exercise, and a leak grows"
        )
        self._end_cycle(capture, first)
        try:
            self._repeat(capture, pinned.module, first)
        except TargetError as error:
            self._notes.append(f"{self.place()} was the last: {error}")

    def _caller(self, address: int) -> str:
        """Name what returns to an address, as it is now."""
        frame = self.names().resolve(address, len(self.cycles()))
        name = f"{address:#x}" if frame.symbol is None else f"{frame.symbol}+{frame.offset:#x}"
        return name if frame.module is None else f"{name} [{frame.module}]"

    def _repeat(self, capture: Capture, pinned: str, first: int) -> None:
        for index in range(first + 1, self._run.cycles + 1):
            self._cycle_now = index
            number, began = capture.tracer.begin_cycle(), time.monotonic_ns()
            module = pinned if len(self._run.targets) > 1 else None
            self.note_repeat(Cycle(number, began, None, None, module))
            self._exercise(capture, self.place())
            capture.sample("unloaded", index)
            self._end_cycle(capture, index)
