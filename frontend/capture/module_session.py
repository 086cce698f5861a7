"""The main job: load a module, exercise it, unload it, again and again, and watch what stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from kleak.capture.circumstances import Observer, Recorder
from kleak.capture.events import make_plan, read_btf
from kleak.capture.headers import find_headers
from kleak.capture.kernel_state import read_kernel, read_kernel_table
from kleak.capture.kmemleak import Kmemleak
from kleak.capture.modules import (
    ModuleLoader,
    ModuleTarget,
    Timeouts,
    loaded_modules,
    run_exercise,
)
from kleak.capture.recording import read_session
from kleak.capture.records import Limits, LoadRecord
from kleak.capture.settle import BETWEEN_CYCLES, Patience, patience_at_the_end, settle
from kleak.capture.tracer import Tracer
from kleak.errors import KleakError, StoppedError, TargetError, UnsupportedError
from kleak.model import Cycle, Session, Target, Trust
from kleak.progress import Progress
from kleak.symbols.kernel_table import KernelTable
from kleak.symbols.symboliser import ModuleLoad, Symboliser


@dataclass(frozen=True, slots=True)
class ModuleRun:
    """What to do. ``exercise`` is a shell line. With ``init_may_fail`` a load whose init fails is
    a cycle too. ``headers`` names a header tree. ``keep`` outstanding allocations of a site are
    kept. ``kmemleak``: ask it, where the kernel has it.
    """

    target: ModuleTarget
    cycles: int
    exercise: str | None
    init_may_fail: bool
    headers: str | None
    limits: Limits
    timeouts: Timeouts
    keep: int
    kmemleak: bool = True


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
    with module_tracer(run, progress) as tracer:
        return capture_module(run, tracer, progress, recorder)


def module_tracer(run: ModuleRun, progress: Progress) -> Tracer:
    """Return a tracer for the module of ``run``, not attached yet."""
    progress.say("reading the kernel's types and symbols")
    plan = make_plan(read_btf(), read_kernel_table(), modules=True)
    progress.say("compiling and attaching")
    return Tracer(plan, find_headers(run.headers), modules=(run.target.name,), limits=run.limits)


def capture_module(
    run: ModuleRun, tracer: Tracer, progress: Progress, recorder: Recorder
) -> Outcome:
    """Run the cycles under a tracer that is attached, and fresh or reset to this module.

    As trace_module(): many runs may share the programs that one tracer has compiled.
    """
    with Observer((run.target.name,), run.cycles) as observer:
        capture = _Capture(run, tracer, progress, recorder, observer)
        with capture.kmemleak:
            failure = capture.run_cycles()
        progress.say("reading the result")
        session = capture.session(failure, finished=True)
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
        observer: Observer,
    ) -> None:
        self._run = run
        self._tracer = tracer
        self._progress = progress
        self._recorder = recorder
        self.kmemleak = Kmemleak(wanted=run.kmemleak)
        self._observer = observer
        self._table: KernelTable | None = None
        self._others: frozenset[tuple[str, int]] = frozenset()
        self._failures: dict[int, str] = {}
        self._symboliser: Symboliser | None = None
        self._symboliser_table: KernelTable | None = None
        self._placed = 0
        self._misfits: list[str] = []

    def run_cycles(self) -> KleakError | None:
        """Load, exercise, unload; settle. Returns what ended it early."""
        failure: KleakError | None = None
        patience = patience_at_the_end(sees_kfree_rcu=self._tracer.sees_kfree_rcu)
        self._save_beginning()
        try:
            with ModuleLoader(self._run.target, self._run.timeouts) as loader:
                for index in range(1, self._run.cycles + 1):
                    self._run_cycle(loader, index)
        except (TargetError, UnsupportedError) as error:
            failure = error
        except KeyboardInterrupt:
            failure = StoppedError("interrupted")
            patience = BETWEEN_CYCLES
        if self._table is None:
            self._table = read_kernel_table()
        unloaded_at = time.monotonic()
        try:
            self._settle(patience, "end")
            if not isinstance(failure, StoppedError):
                self.kmemleak.ask(self._tracer.outstanding, unloaded_at, self._progress)
        except KeyboardInterrupt:
            failure = failure or StoppedError("interrupted while waiting for late frees")
        self._sample("end", 0)
        return failure

    def _run_cycle(self, loader: ModuleLoader, index: int) -> None:
        name = self._run.target.name
        doing = f"cycle {index} of {self._run.cycles}"
        self._progress.say(f"{doing}: loading {name}")
        try:
            loader.load()
        except TargetError as error:
            self._failures[index] = str(error)
            # Without a load event its init never ran, so this is no cycle.
            if not self._run.init_may_fail or len(self._tracer.loads()) < index:
                raise
            self._notice_modules()
        else:
            self._notice_modules()
            self._sample("loaded", index)
            if self._run.exercise is not None:
                run_exercise(
                    self._run.exercise,
                    lambda: self._progress.say(f"{doing}: {self._run.exercise}"),
                )
            self._progress.say(f"{doing}: unloading {name}")
            loader.unload()
            self._sample("unloaded", index)
        self._settle(BETWEEN_CYCLES, doing)
        self._sample("settled", index)
        self._progress.say(f"{doing}: saving")
        self._recorder.save(self.session(None, finished=False))

    def _save_beginning(self) -> None:
        """Save that the capture began: what ends it in the first cycle leaves that much."""
        target = _describe(self._run.target)
        self._sample("start", 0)
        about = self._observer.describe(target, (), (), finished=False)
        self._recorder.save(Session(read_kernel(), target, (), (), Trust(), None, about))

    def _sample(self, when: str, cycle: int) -> None:
        self._observer.sample(when, cycle, self._tracer.totals())

    def _notice_modules(self) -> None:
        """Take a snapshot of the kernel's symbols when other modules came or went."""
        others = frozenset(
            (name, module.address)
            for name, module in loaded_modules().items()
            if name != self._run.target.name
        )
        if self._table is None or others != self._others:
            self._table = read_kernel_table()
            self._others = others

    def _settle(self, patience: Patience, doing: str) -> None:
        settle(self._tracer.outstanding_count, patience, self._progress, doing)

    def session(self, failure: KleakError | None, *, finished: bool) -> Session:
        """Read what there is so far; ``finished`` when no more will come."""
        if self._table is None:
            raise AssertionError("run_cycles() takes a snapshot of the symbols")
        loads = self._tracer.loads()
        symboliser = self._symbols(self._table, loads)
        notes = list(self._misfits)
        cycles = [self._cycle(record) for record in loads]
        if failure is not None:
            notes.append(f"ended in cycle {max(1, len(cycles))} of {self._run.cycles}: {failure}")
        return read_session(
            self._tracer,
            _describe(self._run.target),
            cycles,
            symboliser.resolve,
            self._observer,
            finished=finished,
            kmemleak=self.kmemleak.result,
            keep=self._run.keep,
            notes=notes,
        )

    def _symbols(self, table: KernelTable, loads: Sequence[LoadRecord]) -> Symboliser:
        """Return names for ``table`` and ``loads``; what is known from earlier cycles is kept."""
        if self._symboliser is None or self._symboliser_table is not table:
            self._symboliser, self._symboliser_table = Symboliser(table), table
            self._placed, self._misfits = 0, []
        for record in loads[self._placed :]:
            load = _module_load(record, self._run.target)
            if load.fits:
                self._symboliser.add(load)
            else:
                self._misfits.append(
                    f"the module loaded in cycle {record.cycle} is not the one in "
                    f"{load.image.path}: its functions have no names"
                )
        self._placed = len(loads)
        return self._symboliser

    def _cycle(self, record: LoadRecord) -> Cycle:
        return Cycle(
            record.cycle,
            record.loaded_at_ns,
            record.unloaded_at_ns,
            self._failures.get(record.cycle),
        )


def _module_load(record: LoadRecord, target: ModuleTarget) -> ModuleLoad:
    return ModuleLoad(
        target.image,
        record.text.start,
        record.text.end - record.text.start,
        record.init_text.start,
        record.init_text.end - record.init_text.start,
        record.cycle,
    )


def _describe(target: ModuleTarget) -> Target:
    return Target(
        "module",
        target.name,
        str(target.path),
        target.parameters,
        target.image.version,
        target.image.build_id,
    )
