"""The main job: load a module, exercise it, unload it, again and again, and watch what stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Capture, Outcome, Tracing, capture
from kleak.capture.module_loads import ModuleLoads
from kleak.capture.target.exercises import Exercise
from kleak.capture.target.modules import ModuleLoader, ModuleTarget, Timeouts
from kleak.capture.tracers import tracer_of_modules
from kleak.capture.witnesses.observer import Recorder
from kleak.errors import KleakError, TargetError
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

    Raises UnsupportedError where this machine cannot trace at all.
    """
    with tracer_of_modules(run.names, run.tracing, progress) as tracer:
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

    def run_cycles(self, capture: Capture) -> None:
        """See Driver."""
        needs = [name for exercise in self._run.exercises for name in exercise.needs]
        with ModuleLoader(self._run.targets, self._run.timeouts, needs) as loader:
            for index in range(1, self._run.cycles + 1):
                self._cycle_now = index
                self._run_cycle(capture, loader, index)

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
            for exercise in self._run.exercises:
                capture.progress.say(f"{doing}: {exercise.what}")
                exercise.run()
            capture.progress.say(f"{doing}: unloading {self.title}")
            loader.unload()
            capture.sample("unloaded", index)
        capture.settle(doing)
        capture.sample("settled", index)
        self._ended = index
        capture.progress.say(f"{doing}: saving")
        capture.save()
