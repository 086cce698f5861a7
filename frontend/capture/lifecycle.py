"""The life of a capture: it begins, has cycles, waits for late frees, asks the kernel, ends.

A :class:`Driver` says what is done in the cycles and what addresses are called. All else is here.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from kleak.capture.engine.records import Limits
from kleak.capture.engine.sampling import WALK_EVERY
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel
from kleak.capture.machine.settle import BETWEEN_CYCLES, Patience, patience_at_the_end, settle
from kleak.capture.pointers.question import SECONDS, PointerSearch
from kleak.capture.read_session import KEPT_OF_A_SITE, End, Observed, cut_off, read_session
from kleak.capture.site_index import Names
from kleak.capture.witnesses.kmemleak import Kmemleak
from kleak.capture.witnesses.observer import Observer, Recorder
from kleak.errors import (
    KleakError,
    StoppedError,
    StoppedWaitingError,
    TargetError,
    UnsupportedError,
)
from kleak.model.session import Cycle, Session, Target, Trust
from kleak.progress import Progress


@dataclass(frozen=True, slots=True)
class Tracing:
    """How to trace, whatever it is. ``headers`` names a header tree. ``keep`` outstanding
    allocations of a site are kept. ``kmemleak``: ask it, where the kernel has it.
    ``pointer_seconds``: how long to search memory for pointers, 0 for not at all. ``walk_every``:
    in a scope of everything or of own calls, one stack in so many is walked.
    """

    headers: str | None = None
    limits: Limits = field(default_factory=Limits)
    keep: int = KEPT_OF_A_SITE
    kmemleak: bool = True
    pointer_seconds: float = SECONDS
    walk_every: int = WALK_EVERY


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a capture saw, and what ended it early, if anything did."""

    session: Session
    failure: KleakError | None


class Driver(ABC):
    """What one kind of capture does in its cycles."""

    def __init__(self, target: Target, observer: Observer) -> None:
        """``target`` is what is observed; ``observer`` has not been entered yet."""
        self.target = target
        self.observer = observer

    @abstractmethod
    def run_cycles(self, capture: Capture) -> None:
        """Run all cycles, with a sample, a settle and a save for each, as ``capture`` has them.

        TargetError, UnsupportedError and KeyboardInterrupt end the cycles, and not the capture.
        """

    @abstractmethod
    def cycles(self) -> Sequence[Cycle]:
        """The cycles so far."""

    @abstractmethod
    def names(self) -> Names:
        """What addresses of these cycles are called."""

    @abstractmethod
    def place(self) -> str:
        """Where it is now, as a note says it: "cycle 2 of 5"."""

    @abstractmethod
    def cut_off(self, failure: KleakError | None) -> int:
        """How many planned cycles did not come to their end; asked when there will be no more."""

    def notes(self) -> list[str]:
        """Sentences for the reader of the report."""
        return []

    def has_late_frees(self) -> bool:
        """Whether to wait at the end as long as frees may take."""
        return True

    def is_quiet(self) -> bool:
        """Whether nothing allocates in scope any more: else kmemleak's answer would mean little."""
        return True


def capture(
    driver: Driver, tracer: Tracer, progress: Progress, recorder: Recorder, tracing: Tracing
) -> Outcome:
    """Run the cycles under a tracer that is attached, and fresh or reset; return what was seen.

    ``recorder`` gets it after each cycle. A failure of the target, or Ctrl-C, ends the cycles but
    not the capture: what was seen so far is returned with it.
    """
    return Capture(driver, tracer, progress, recorder, tracing).live()


class Capture:
    """A capture in progress, as its driver sees it."""

    def __init__(
        self,
        driver: Driver,
        tracer: Tracer,
        progress: Progress,
        recorder: Recorder,
        tracing: Tracing,
    ) -> None:
        """Nothing has begun."""
        self.tracer = tracer
        self.progress = progress
        self._driver = driver
        self._recorder = recorder
        self._keep = tracing.keep
        self._kmemleak = Kmemleak(wanted=tracing.kmemleak)
        self._pointers = PointerSearch(tracing.pointer_seconds, tracing.headers)

    def live(self) -> Outcome:
        """Go through it from beginning to end."""
        with self._driver.observer:
            with self._kmemleak:
                failure = self._run_cycles()
            self.progress.say("reading the result")
            cut = cut_off(self._driver.cut_off(failure), failure)
            session = self._read(failure, End(self._kmemleak.result, self._pointers.result, cut))
        try:
            self._recorder.save(session)
        except UnsupportedError as error:
            failure = failure or error
        return Outcome(session, failure)

    # --- what drivers do with it ------------------------------------------------------------------

    def sample(self, when: str, cycle: int) -> None:
        """Note what is outstanding now; see :class:`kleak.model.session.MemorySample`."""
        self._driver.observer.sample(when, cycle, self.tracer.totals())

    def settle(self, doing: str, patience: Patience = BETWEEN_CYCLES) -> None:
        """Wait for late frees; ``doing`` is what to show for it."""
        settle(self.tracer.outstanding_count, patience, self.progress, doing)

    def save(self) -> None:
        """Keep what was seen so far. Raises UnsupportedError where that is refused."""
        self._recorder.save(self._read(None, None))

    # --- its parts --------------------------------------------------------------------------------

    def _run_cycles(self) -> KleakError | None:
        """Run the cycles and wait for the last of what they freed; return what ended it early."""
        failure: KleakError | None = None
        patience = patience_at_the_end(sees_kfree_rcu=self.tracer.sees_kfree_rcu)
        self._save_beginning()
        try:
            self._driver.run_cycles(self)
        except (TargetError, UnsupportedError) as error:
            failure = error
        except KeyboardInterrupt:
            failure, patience = StoppedError("interrupted"), BETWEEN_CYCLES
        allocated_until = time.monotonic()
        try:
            self.settle("end", patience if self._driver.has_late_frees() else BETWEEN_CYCLES)
            if not isinstance(failure, StoppedError) and self._driver.is_quiet():
                self._kmemleak.ask(self.tracer, allocated_until, self.progress)
                self._pointers.ask(self.tracer, self.progress)
        except KeyboardInterrupt:
            failure = failure or StoppedWaitingError("interrupted while waiting for late frees")
        self.sample("end", 0)
        return failure

    def _save_beginning(self) -> None:
        """Save that the capture began: what ends it in the first cycle leaves that much."""
        self.sample("start", 0)
        about = self._driver.observer.describe((), (), finished=False)
        self._recorder.save(
            Session(read_kernel(), self._driver.target, (), (), Trust(), None, about)
        )

    def _read(self, failure: KleakError | None, end: End | None) -> Session:
        notes = self._driver.notes()
        if failure is not None:
            notes.append(f"ended in {self._driver.place()}: {failure}")
        observed = Observed(
            self._driver.target,
            self._driver.cycles(),
            self._driver.names(),
            self._driver.observer,
            self._keep,
            tuple(notes),
        )
        return read_session(self.tracer, observed, end)
