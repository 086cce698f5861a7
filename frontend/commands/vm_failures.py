"""``kleak vm -- module ... --fail-calls``: a failure that takes the guest down ends no more.

What is left to try goes on in a fresh one, by the session that the guests share.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from kleak.analysis.error_paths import conclude
from kleak.commands.options.decision import Decision
from kleak.errors import ExitStatus, KleakError
from kleak.faults.complaints import MOST_LINES, complaints
from kleak.model.faults import FaultRun
from kleak.model.report import Verdict
from kleak.model.session import Session
from kleak.render import table
from kleak.store.reader import read_session
from kleak.store.writer import SessionWriter
from kleak.terminal import text_width

FAIL_CALLS = "--fail-calls"
_OUTPUT = ("-o", "--output")


def fails_calls(command: Sequence[str]) -> bool:
    """Whether ``command`` makes calls of a module fail."""
    return command[:1] == ("module",) and FAIL_CALLS in command


def with_session(command: tuple[str, ...]) -> tuple[tuple[str, ...], Path]:
    """Return ``command`` with a session file that outlives the guest, and that file."""
    for index, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name in _OUTPUT and (equals or index + 1 < len(command)):
            return command, Path(value if equals else command[index + 1])
    path = Path(f"kleak-failures-{time.strftime('%Y%m%dT%H%M%S')}.kleak")
    return (command[0], "-o", str(path), *command[1:]), path


def resumed(command: tuple[str, ...], session: Path) -> tuple[str, ...]:
    """Return the command that goes on with ``session``: what it planned is planned already."""
    words: list[str] = []
    skip = False
    for word in command:
        name, equals, _ = word.partition("=")
        if skip:
            skip = False
        elif name in ("--resume", "--fail-limit", "--fail-only"):
            skip = not equals
        elif name != "--fail-every":
            words.append(word)
    return (words[0], "--resume", str(session), "--force", *words[1:])


def left(session: Path) -> FaultRun | None:
    """Return the faults of a session that has failures left to try after a crash, else None."""
    try:
        faults = read_session(session).faults
    except KleakError:
        return None
    crashed = faults is not None and any(one.crash is not None for one in faults.injections[-1:])
    return faults if faults is not None and faults.left and crashed else None


def note_death(session: Path, console: Sequence[str], failure: str) -> bool:
    """Write into ``session`` what the guest's console said last; whether it died of a failure."""
    try:
        saved = read_session(session)
    except KleakError:
        return False
    if saved.faults is None or not saved.faults.injections:
        return False
    last = saved.faults.injections[-1]
    if last.crash is None:
        return False
    log, _ = complaints("\n".join(console))
    log = log or "\n".join(console[-MOST_LINES:])
    injections = (*saved.faults.injections[:-1], replace(last, crash=failure, complaints=log))
    _save(session, replace(saved, faults=replace(saved.faults, injections=injections)))
    return True


def report_session(session: Path) -> ExitStatus:
    """Print the report of a session whose last failure took the guest down."""
    report = conclude(read_session(session))
    click.echo(table.render(report, width=text_width()), nl=False)
    return Decision(Verdict.LIKELY.label, strict=False).status_of(report)


def _save(path: Path, session: Session) -> None:
    # What is kept of a site is read from the file when it is asked for, which is now.
    whole = tuple(replace(site, kept=tuple(site.kept)) for site in session.sites)
    with SessionWriter(path, replace=True) as writer:
        writer.save(replace(session, sites=whole))
