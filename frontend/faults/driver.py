"""The capture in which calls of the module fail: one failure a cycle."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kleak.analysis.error_paths import leaves_more
from kleak.capture.engine.declared import MAX_LOADS
from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Capture, Outcome, Tracing, capture
from kleak.capture.machine.kcore import kernel_memory
from kleak.capture.machine.settings import real_addresses
from kleak.capture.module_loads import ModuleLoads
from kleak.capture.target.exercises import Exercise
from kleak.capture.target.modules import ModuleLoader, ModuleTarget, Timeouts
from kleak.capture.tracers import tracer_of_modules
from kleak.capture.witnesses.kernel_log import KernelLog
from kleak.capture.witnesses.observer import Recorder
from kleak.errors import KleakError, TargetError, UnsupportedError
from kleak.faults.complaints import complaints, headline
from kleak.faults.exercise import run_exercise
from kleak.faults.module_copy import COUNTERS, made
from kleak.faults.plan import CYCLES_OF_A_SUSPECT, Choice, plan
from kleak.faults.prepare import Prepared
from kleak.files.names import readable
from kleak.model.faults import (
    EXERCISE,
    LOAD,
    UNLOAD,
    FailedCall,
    Failure,
    FaultRun,
    Injection,
)
from kleak.model.session import Session
from kleak.progress import Progress

BASELINE_CYCLES = 3
"""So many cycles in which nothing fails, where the first of them leaves something."""

SLOWER = 10.0
LEAST_LIMIT_S = 30.0
"""An exercise hangs that takes SLOWER times as long as without a failure, and so long at least."""

_TAINTED = Path("/proc/sys/kernel/tainted")
_DIED = 1 << 7  # TAINT_DIE
DID_NOT_COME_BACK = "the machine did not come back from it"


@dataclass(frozen=True, slots=True)
class FaultCapture:
    """What to do. ``original`` is the module that was asked for. ``earlier`` is what a capture of
    the same module found that this one goes on with. ``announce`` shows a line to the user.
    """

    original: ModuleTarget
    prepared: Prepared
    choice: Choice
    exercises: tuple[Exercise, ...]
    timeouts: Timeouts
    tracing: Tracing
    announce: Callable[[str], None]
    earlier: FaultRun | None = None


def fail_calls(run: FaultCapture, progress: Progress, recorder: Recorder) -> Outcome:
    """Run the cycles and return what was seen; see :func:`kleak.capture.lifecycle.capture`."""
    with tracer_of_modules([run.original.name], run.tracing, progress) as tracer:
        return fail_calls_under(run, tracer, progress, recorder)


def fail_calls_under(
    run: FaultCapture, tracer: Tracer, progress: Progress, recorder: Recorder
) -> Outcome:
    """As fail_calls(), under a tracer that is attached, and fresh or reset to this module."""
    with KernelLog() as log:
        driver = FailingCycles(run, tracer, log)
        return capture(driver, tracer, progress, recorder, run.tracing)


class _Stop(Exception):  # noqa: N818 (it is no error)
    """Nothing can be tried any more."""


class FailingCycles(ModuleLoads):
    """Loads, exercises and unloads, with a failure in each cycle but the first ones."""

    def __init__(self, run: FaultCapture, tracer: Tracer, log: KernelLog) -> None:
        """Nothing is loaded yet."""
        super().__init__(tracer, (run.prepared.target,), planned_cycles=None)
        # What is shown is the module that was asked for, not the copy.
        self.target = replace(
            self.target,
            path=readable(str(run.original.path)),
            parameters=tuple(map(readable, run.prepared.target.parameters)),
        )
        self._run = run
        self._log = log
        self._log_read = 0
        self._calls: tuple[FailedCall, ...] = run.prepared.calls
        self._injections: list[Injection] = []
        self._left: list[Failure] = []
        self._baseline: set[int] = set()
        self._place = "the cycles without a failure"
        self._limit_s = max(LEAST_LIMIT_S, run.timeouts.load)
        self._crashed = False
        self._taint = _read_taint()

    # --- what a Driver says -----------------------------------------------------------------------

    def run_cycles(self, capture: Capture) -> None:
        """See Driver. Ends without an error where a failure left the kernel unusable."""
        needs = [name for exercise in self._run.exercises for name in exercise.needs]
        needs += self._run.prepared.dependencies
        with ModuleLoader((self._run.prepared.target,), self._run.timeouts, needs) as loader:
            self._load_dependencies()
            began = time.monotonic()
            session = self._run_without_failure(capture, loader)
            each_s = (time.monotonic() - began) / len(self._baseline)
            self._left = self._planned()
            self._announce(each_s)
            capture.keep(self.complete(session))
            try:
                self._run_failures(capture, loader, session)
            except _Stop:
                loader.leave()

    def place(self) -> str:
        """See Driver."""
        return self._place

    def cut_off(self, failure: KleakError | None) -> int:
        """See Driver: failures that were planned and not tried."""
        return len(self._left)

    def complete(self, session: Session) -> Session:
        """See Driver."""
        faults = FaultRun(
            self._calls,
            self._run.prepared.not_tried,
            tuple(self._injections),
            tuple(self._left),
        )
        return replace(session, faults=faults)

    def notes(self) -> list[str]:
        """See Driver."""
        notes = super().notes()
        notes.append(
            "faults were injected: kleak made calls of the module fail on purpose, in a changed "
            "copy of it"
        )
        new = _read_taint() & ~self._taint
        if new:
            bits = ", ".join(str(bit) for bit in range(new.bit_length()) if new >> bit & 1)
            notes.append(f"this tainted the kernel (bits {bits} of /proc/sys/kernel/tainted)")
        return notes

    def has_late_frees(self) -> bool:
        """See Driver: after a crash nothing is waited for that may never come."""
        return not self._crashed

    def is_quiet(self) -> bool:
        """See Driver."""
        return not self._crashed

    # --- its parts --------------------------------------------------------------------------------

    def _load_dependencies(self) -> None:
        for name in self._run.prepared.dependencies:
            done = subprocess.run(
                ["modprobe", name], capture_output=True, text=True, errors="replace", check=False
            )
            if done.returncode != 0:
                raise TargetError(f"module {name} does not load: {done.stderr.strip()}")

    def _run_without_failure(self, capture: Capture, loader: ModuleLoader) -> Session:
        """Count the calls, and see what stays without a failure."""
        for number in range(1, BASELINE_CYCLES + 1):
            doing = self._place = f"cycle {number} without a failure"
            self._run.prepared.copy.write(self._run.prepared.target.path)
            capture.progress.say(f"{doing}: loading {self.title}")
            loader.load()
            self.notice_modules()
            began = time.monotonic()
            for exercise in self._run.exercises:
                capture.progress.say(f"{doing}: {exercise.what}")
                said = run_exercise(exercise, None)
                if said:
                    loader.unload()
                    raise TargetError(f"without any failure, the exercise fails: {said}")
            if number == 1:
                self._limit_s = max(LEAST_LIMIT_S, SLOWER * (time.monotonic() - began))
                self._calls = tuple(
                    replace(call, made=count)
                    for call, count in zip(self._calls, self._counters(), strict=True)
                )
            loader.unload()
            capture.settle(doing)
            cycle = len(self._tracer.loads())
            capture.sample("settled", cycle)
            self._baseline.add(cycle)
            self._complaints()
            session = capture.save()
            if not any(site.cycles[cycle - 1].outstanding.count > 0 for site in session.sites):
                break
        return session

    def _planned(self) -> list[Failure]:
        if self._run.earlier is not None:
            return list(self._run.earlier.left)
        return plan(self._calls, self._run.choice)

    def _announce(self, each_s: float) -> None:
        reached = sum(call.made > 0 for call in self._calls)
        count = len(self._left)
        self._run.announce(
            f"{reached} of {len(self._calls)} calls that can fail are reached; {count} failures to "
            f"try, one a cycle, about {_duration(count * each_s)} "
            "(longer where something stays: that is repeated)"
        )

    def _run_failures(self, capture: Capture, loader: ModuleLoader, session: Session) -> None:
        count, began = len(self._left), time.monotonic()
        for number in range(1, count + 1):
            failure = self._left.pop(0)
            remaining = ""
            if number > 1:
                seconds = (time.monotonic() - began) / (number - 1) * (count - number + 1)
                remaining = f", about {_duration(seconds)} left"
            call = self._calls[failure.call - 1]
            for turn in range(1, CYCLES_OF_A_SUSPECT + 1):
                if len(self._tracer.loads()) >= MAX_LOADS:
                    raise UnsupportedError(f"{MAX_LOADS} loads are the most that are kept apart")
                again = f", again ({turn} of {CYCLES_OF_A_SUSPECT})" if turn > 1 else ""
                self._place = f"failure {number} of {count}{again}"
                capture.progress.say(
                    f"{self._place}: {call.function}() in {call.place.symbol}{remaining}"
                )
                session = self._fail(capture, loader, session, failure)
                cycle = self._injections[-1].cycle
                if cycle is None or not leaves_more(session, (cycle,), self._baseline):
                    break

    def _fail(
        self, capture: Capture, loader: ModuleLoader, session: Session, failure: Failure
    ) -> Session:
        """Run a cycle in which ``failure`` happens; raise _Stop where it is the last one."""
        before = len(self._tracer.loads())
        # Saved before: where the kernel panics, the session says what it died of.
        self._injections.append(Injection(failure, before + 1, crash=DID_NOT_COME_BACK))
        capture.keep(self.complete(session))
        self._run.prepared.copy.write(
            self._run.prepared.target.path, (failure.call - 1, failure.nth)
        )
        injection = self._watch(loader, failure)
        cycle = len(self._tracer.loads())
        log, deadly = self._complaints()
        crash = headline(log) if deadly else injection.crash
        if crash is None:
            capture.settle(self._place)
        if cycle > before:
            capture.sample("settled", cycle)
        injection = replace(
            injection, cycle=cycle if cycle > before else None, complaints=log, crash=crash
        )
        self._injections[-1] = injection
        if injection.phase == LOAD and cycle > before:
            self.note_failure(cycle, injection.said)
        self._crashed = crash is not None
        session = capture.save()
        if self._crashed:
            raise _Stop
        return session

    def _watch(self, loader: ModuleLoader, failure: Failure) -> Injection:
        """Load, exercise and unload; say which of it failed, and how."""
        phase, said, reached = None, "", None
        try:
            loader.load()
        except TargetError as error:
            self.notice_modules()
            crash = str(error) if loader.stuck else self._unload(loader)
            said = str(error).partition(" does not load: ")[2] or str(error)
            return Injection(failure, None, LOAD, said, True, crash=crash)
        self.notice_modules()
        for exercise in self._run.exercises:
            try:
                complaint = run_exercise(exercise, self._limit_s)
            except TimeoutError as error:
                crash = self._unload(loader)
                return Injection(failure, None, EXERCISE, str(error), None, crash=crash)
            if complaint and not said:
                phase, said = EXERCISE, complaint
        counted = self._counters()
        # It began at nth and is below 1 once the call failed.
        reached = counted[failure.call - 1] < 1 << 31 if counted else None
        crash = self._unload(loader)
        if crash is not None:
            phase, said = phase or UNLOAD, said or crash
        return Injection(failure, None, phase, said, reached, crash=crash)

    @staticmethod
    def _unload(loader: ModuleLoader) -> str | None:
        """Unload; return why the module stays, if it does."""
        try:
            loader.unload()
        except TargetError as error:
            return str(error)
        return None

    def _counters(self) -> list[int]:
        """How often each call was made since the module was loaded, less than what it began with.

        Raises UnsupportedError where the kernel's memory cannot be read.
        """
        at = Path(f"/sys/module/{self._run.prepared.target.name}/sections/{COUNTERS}")
        size = 4 * len(self._calls)
        try:
            with real_addresses("0"), kernel_memory() as memory:
                data = memory.read(int(at.read_text(), 16), size)
        except (OSError, ValueError) as error:
            raise UnsupportedError(f"calls cannot be counted: {error}") from error
        if len(data) != size:
            raise UnsupportedError("calls cannot be counted: /proc/kcore has no module data")
        return made(data)

    def _complaints(self) -> tuple[str, bool]:
        """What the kernel complained of since the last time, and whether a task died of it."""
        text = self._log.read() or ""
        new, self._log_read = text[self._log_read :], len(text)
        log, deadly = complaints(new)
        died = bool(_read_taint() & ~self._taint & _DIED)
        return log, deadly or (died and not self._crashed)


def _read_taint() -> int:
    try:
        return int(_TAINTED.read_text())
    except (OSError, ValueError):
        return 0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min"
