"""``kleak module --fail-calls``: from the options to the capture."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from kleak.capture.lifecycle import Outcome, Tracing
from kleak.capture.target.exercises import Exercise
from kleak.capture.target.modules import ModuleTarget, Timeouts
from kleak.capture.witnesses.observer import Recorder
from kleak.commands.options.faults import FaultOptions
from kleak.errors import UsageError
from kleak.faults.driver import FaultCapture, fail_calls
from kleak.faults.prepare import check_unsigned_loads, prepare
from kleak.faults.resume import Joining, check_fits, join
from kleak.model.session import Session
from kleak.progress import Progress
from kleak.store.reader import read_session


def check(faults: FaultOptions, targets: tuple[ModuleTarget, ...]) -> None:
    """Raise KleakError where calls of these modules cannot be failed."""
    if len(targets) > 1:
        raise UsageError("--fail-calls takes one module")
    check_unsigned_loads()


def earlier_session(faults: FaultOptions) -> Session | None:
    """Return the session to go on with, if one was given, without what only its file has."""
    if faults.resume is None:
        return None
    session = read_session(Path(faults.resume))
    return replace(session, sites=tuple(replace(site, kept=()) for site in session.sites))


def run_failures(
    faults: FaultOptions,
    target: ModuleTarget,
    exercises: tuple[Exercise, ...],
    timeouts: Timeouts,
    tracing: Tracing,
) -> Callable[[Progress, Recorder], Outcome]:
    """Return what runs the capture. Raises KleakError for a session that cannot be gone on with."""
    earlier = earlier_session(faults)

    def run(progress: Progress, recorder: Recorder) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="kleak-fail-") as directory:
            progress.say("looking for calls that can fail")
            prepared = prepare(target, Path(directory))
            known = None
            if earlier is not None:
                known = check_fits(earlier, prepared, str(faults.resume))

            def announce(line: str) -> None:
                progress.done()
                click.echo(line, err=True)

            plan = FaultCapture(
                target, prepared, faults.choice, exercises, timeouts, tracing, announce, known
            )
            if earlier is None:
                return fail_calls(plan, progress, recorder)
            outcome = fail_calls(plan, progress, Joining(recorder, earlier))
            return replace(outcome, session=join(earlier, outcome.session))

    return run
