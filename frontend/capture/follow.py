"""Watching modules that somebody else loads and unloads: a test suite, udev, a person.

The program on module_load sets the scope and begins a cycle before a line of the module runs, and
the one on module_free ends it, so no cycle depends on how fast anything here is. Nothing is pushed
or hurried between cycles, since that is somebody else's work; late frees count for the cycle that
allocated, whenever they come. The kernel's reports are compared from just before modules are waited
for until after the last late free.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from kleak.capture.engine.declared import MAX_LOADS
from kleak.capture.engine.records import LoadRecord
from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Capture, Outcome, Tracing, capture
from kleak.capture.machine.kernel_state import loaded_modules
from kleak.capture.module_loads import ModuleLoads
from kleak.capture.target.module_news import ModuleNews
from kleak.capture.target.modules import ModuleTarget
from kleak.capture.tracers import tracer_of_modules
from kleak.capture.witnesses.observer import Recorder, read_build_id
from kleak.errors import KleakError, TargetError, UnsupportedError
from kleak.progress import Progress

_LOOK_SECONDS = 1.0  # for loads without a uevent: those whose init fails


@dataclass(frozen=True, slots=True)
class FollowRun:
    """What to follow. It ends after ``cycles`` pairs of a load and an unload, after
    ``timeout_s``, or at Ctrl-C; without a limit, ``None``.
    """

    targets: tuple[ModuleTarget, ...]
    cycles: int | None
    timeout_s: float | None
    tracing: Tracing


def follow_module(
    run: FollowRun, progress: Progress, recorder: Recorder, on_ready: Callable[[str], None]
) -> Outcome:
    """Watch until it ends and return what was seen; see :func:`kleak.capture.lifecycle.capture`.

    ``on_ready`` is called with the names of the modules when loads count from then on. Raises
    UnsupportedError where this machine cannot trace at all.
    """
    names = [target.name for target in run.targets]
    with tracer_of_modules(names, run.tracing, progress) as tracer:
        driver = FollowedCycles(run, tracer, on_ready)
        return capture(driver, tracer, progress, recorder, run.tracing)


class FollowedCycles(ModuleLoads):
    """Waits for loads and unloads."""

    def __init__(self, run: FollowRun, tracer: Tracer, on_ready: Callable[[str], None]) -> None:
        """Nothing is waited for yet."""
        super().__init__(tracer, run.targets, planned_cycles=run.cycles)
        self._run = run
        self._on_ready = on_ready
        self._notes: list[str] = []
        self._seen = 0
        self._finished = 0

    def run_cycles(self, capture: Capture) -> None:
        """See Driver. Ctrl-C is the way to end it."""
        try:
            self.notice_modules()
            self._note_those_there()
            capture.progress.done()
            self._on_ready(self.title)
            with ModuleNews() as news:
                self._watch(capture, news)
        except KeyboardInterrupt:
            pass
        finally:
            self._look(capture)
        if not self._finished:
            raise TargetError(f"{self.title} was not loaded and unloaded while kleak followed")

    def notes(self) -> list[str]:
        """See Driver."""
        return [*super().notes(), *self._notes]

    def place(self) -> str:
        """See Driver."""
        return f"cycle {self._seen}"

    def cut_off(self, failure: KleakError | None) -> int:
        """See Driver."""
        if self._run.cycles is None:
            return int(isinstance(failure, UnsupportedError))  # a full disk
        return self._run.cycles - self._finished

    def has_late_frees(self) -> bool:
        """See Driver."""
        return self._finished > 0

    def is_quiet(self) -> bool:
        """See Driver."""
        return self._finished == self._seen

    def _watch(self, capture: Capture, news: ModuleNews) -> None:
        give_up = None if self._run.timeout_s is None else time.monotonic() + self._run.timeout_s
        while not self._is_over():
            left = _LOOK_SECONDS if give_up is None else give_up - time.monotonic()
            if left <= 0:
                self._notes.append(f"ended after {self._run.timeout_s:g} s")
                return
            capture.progress.say(
                f"following {self.title}, cycles: {self._finished}; Ctrl-C ends it with the report"
            )
            news.wait(min(left, _LOOK_SECONDS))
            self.observer.follow_log()
            before = self._finished
            if self._look(capture) and self._finished > before and not self._is_over():
                capture.save()

    def _is_over(self) -> bool:
        wanted = MAX_LOADS if self._run.cycles is None else self._run.cycles
        return self._finished >= wanted or self._seen >= MAX_LOADS

    def _look(self, capture: Capture) -> bool:
        """See what was loaded and unloaded; return whether anything was."""
        loads = capture.tracer.loads()
        finished = sum(load.unloaded_at_ns is not None for load in loads)
        if (len(loads), finished) == (self._seen, self._finished):
            return False
        if len(loads) > self._seen:
            self.notice_modules()
            self._check_builds(capture.tracer, loads)
        capture.sample("loaded" if finished < len(loads) else "unloaded", len(loads))
        self._seen, self._finished = len(loads), finished
        return True

    def _check_builds(self, tracer: Tracer, loads: tuple[LoadRecord, ...]) -> None:
        """Note loads of another build than the file's, as far as they are still there to ask."""
        for target in self._run.targets:
            own = [load for load in loads if load.name == target.name]
            if not own or own[-1].unloaded_at_ns is not None or target.image.build_id is None:
                continue
            found = read_build_id(target.name)
            if found in (None, target.image.build_id) or tracer.loads() != loads:
                continue  # gone or come again meanwhile: it is not known whose that was
            self.note_stranger(own[-1].cycle)

    def _note_those_there(self) -> None:
        there = loaded_modules()
        seen = {load.name for load in self._tracer.loads()}
        for target in self._run.targets:
            if target.name in there and target.name not in seen:
                self._notes.append(f"{target.name} was loaded already: its next load is cycle 1")
