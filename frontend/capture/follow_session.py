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

from kleak.capture.engine.records import LoadRecord
from kleak.capture.engine.tracer import MAX_LOADS, Tracer
from kleak.capture.machine.kernel_state import loaded_modules
from kleak.capture.machine.settle import BETWEEN_CYCLES, patience_at_the_end, settle
from kleak.capture.module_reader import ModuleReader
from kleak.capture.module_session import Outcome, Tracing, module_tracer
from kleak.capture.read_session import cut_off
from kleak.capture.target.module_news import ModuleNews
from kleak.capture.target.modules import ModuleTarget
from kleak.capture.witnesses.kmemleak import Kmemleak
from kleak.capture.witnesses.observer import Recorder, read_build_id
from kleak.errors import KleakError, StoppedWaitingError, TargetError, UnsupportedError
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
    """Watch until it ends and return what was seen; ``recorder`` gets it after each cycle.

    ``on_ready`` is called with the names of the modules when loads count from then on. Raises
    UnsupportedError where this machine cannot trace at all.
    """
    with module_tracer(run.targets, run.tracing, progress) as tracer:
        return _Capture(run, tracer, progress, recorder, on_ready).follow()


class _Capture:
    """One capture in progress."""

    def __init__(
        self,
        run: FollowRun,
        tracer: Tracer,
        progress: Progress,
        recorder: Recorder,
        on_ready: Callable[[str], None],
    ) -> None:
        self._run = run
        self._tracer = tracer
        self._progress = progress
        self._recorder = recorder
        self._on_ready = on_ready
        self._reader = ModuleReader(
            tracer, run.targets, planned_cycles=run.cycles, keep=run.tracing.keep
        )
        self._names = ", ".join(target.name for target in run.targets)
        self._kmemleak = Kmemleak(wanted=run.tracing.kmemleak)
        self._notes: list[str] = []
        self._seen = 0
        self._finished = 0

    def follow(self) -> Outcome:
        """Watch, wait for late frees, and read what was seen."""
        with self._reader.observer:
            with self._kmemleak:
                failure = self._capture()
            self._progress.say("reading the result")
            missing = int(isinstance(failure, UnsupportedError))  # a full disk
            if self._run.cycles is not None:
                missing = self._run.cycles - self._finished
            session = self._reader.session(
                self._notes,
                finished=True,
                kmemleak=self._kmemleak.result,
                cut=cut_off(missing, failure),
            )
        try:
            self._recorder.save(session)
        except UnsupportedError as error:
            failure = failure or error
        return Outcome(session, failure)

    def _capture(self) -> KleakError | None:
        failure: KleakError | None = None
        self._reader.save_beginning(self._recorder)
        try:
            self._reader.notice_modules()
            self._note_those_there()
            self._progress.done()
            self._on_ready(self._names)
            with ModuleNews() as news:
                self._watch(news)
        except KeyboardInterrupt:
            pass  # the way to end it
        except UnsupportedError as error:
            failure = error
        self._look()
        if not self._finished:
            failure = failure or TargetError(
                f"{self._names} was not loaded and unloaded while kleak followed"
            )
        patience = patience_at_the_end(sees_kfree_rcu=self._tracer.sees_kfree_rcu)
        ended_at = time.monotonic()
        try:
            settle(
                self._tracer.outstanding_count,
                patience if self._finished else BETWEEN_CYCLES,
                self._progress,
                "end",
            )
            if self._finished == self._seen:
                self._kmemleak.ask(self._tracer, ended_at, self._progress)
        except KeyboardInterrupt:
            failure = failure or StoppedWaitingError("interrupted while waiting for late frees")
        self._reader.sample("end", 0)
        return failure

    def _watch(self, news: ModuleNews) -> None:
        give_up = None if self._run.timeout_s is None else time.monotonic() + self._run.timeout_s
        while not self._is_over():
            left = _LOOK_SECONDS if give_up is None else give_up - time.monotonic()
            if left <= 0:
                self._notes.append(f"ended after {self._run.timeout_s:g} s")
                return
            self._progress.say(
                f"following {self._names}, cycles: {self._finished}; Ctrl-C ends it with the report"
            )
            news.wait(min(left, _LOOK_SECONDS))
            self._reader.observer.follow_log()
            before = self._finished
            if self._look() and self._finished > before and not self._is_over():
                self._recorder.save(self._reader.session(self._notes, finished=False))

    def _is_over(self) -> bool:
        wanted = MAX_LOADS if self._run.cycles is None else self._run.cycles
        return self._finished >= wanted or self._seen >= MAX_LOADS

    def _look(self) -> bool:
        """See what was loaded and unloaded; return whether anything was."""
        loads = self._tracer.loads()
        finished = sum(load.unloaded_at_ns is not None for load in loads)
        if (len(loads), finished) == (self._seen, self._finished):
            return False
        if len(loads) > self._seen:
            self._reader.notice_modules()
            self._check_builds(loads)
        self._reader.sample("loaded" if finished < len(loads) else "unloaded", len(loads))
        self._seen, self._finished = len(loads), finished
        return True

    def _check_builds(self, loads: tuple[LoadRecord, ...]) -> None:
        """Note loads of another build than the file's, as far as they are still there to ask."""
        for target in self._run.targets:
            own = [load for load in loads if load.name == target.name]
            if not own or own[-1].unloaded_at_ns is not None or target.image.build_id is None:
                continue
            found = read_build_id(target.name)
            if found in (None, target.image.build_id) or self._tracer.loads() != loads:
                continue  # gone or come again meanwhile: it is not known whose that was
            self._reader.note_stranger(own[-1].cycle)

    def _note_those_there(self) -> None:
        there = loaded_modules()
        seen = {load.name for load in self._tracer.loads()}
        for target in self._run.targets:
            if target.name in there and target.name not in seen:
                self._notes.append(f"{target.name} was loaded already: its next load is cycle 1")
