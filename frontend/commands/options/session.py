"""The options that say what of a session is saved, and where."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click

from kleak.capture.read_session import KEPT_OF_A_SITE
from kleak.capture.sites import SITES_KEPT_WHOLE
from kleak.commands.options.option_group import Command, option_group
from kleak.errors import KleakError
from kleak.store.writer import SessionWriter


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """``path`` of the file, if one was given. ``keep`` outstanding allocations of a site are
    saved.
    """

    path: str | None
    keep: int

    def open(self, target: str) -> SessionWriter:
        """Return the writer of the file of -o, or of a new one that is named after ``target`` and
        the time. Raises KleakError where it cannot be made.
        """
        return open_session(self.path, target)

    @contextmanager
    def saved(self, target: str) -> Iterator[SessionWriter]:
        """Make the session file, as open().

        Says on standard error where it is, however the capture ends; a capture without a cycle
        leaves none, and an older one as it was. Raises KleakError where it cannot be made.
        """
        with self.open(target) as writer:
            try:
                yield writer
            finally:
                if writer.saved_cycles == 0:
                    writer.discard()
                else:
                    ends = f", up to cycle {writer.saved_cycles}" if writer.failed else ""
                    # That nobody reads this is no reason to leave the reports unwritten.
                    with suppress(BrokenPipeError):
                        click.echo(
                            f"session: {writer.path}{ends} (kleak report shows it again)", err=True
                        )


def open_session(path: str | None, target: str) -> SessionWriter:
    """Return the writer of the session file ``path``, or of a new one in the current directory
    that is named after ``target`` and the time. Raises KleakError where it cannot be made.
    """
    if path is not None:
        return SessionWriter(Path(path))
    # A glob is no good in a file name, and a module's name is limited to 55 characters.
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", target).strip("-")[:55] or "kernel"
    begin = f"kleak-{name}-{time.strftime('%Y%m%dT%H%M%S')}"
    chosen, number = Path(f"{begin}.kleak"), 1
    while True:
        try:
            return SessionWriter(chosen, new=True)
        except FileExistsError:  # another one began in the same second
            number += 1
            chosen = Path(f"{begin}-{number}.kleak")
        except KleakError as error:
            raise type(error)(
                f"cannot save the session in the current directory: {error}; -o FILE names "
                "another place"
            ) from error


def session_options(
    *,
    says: str = "Session file to write, for kleak report. [default: kleak-TARGET-TIME.kleak]",
) -> Callable[[Command], Command]:
    """Add the options that make SessionOptions, ``session``; ``says`` is the help of -o."""
    return option_group(
        "session",
        SessionOptions,
        click.option(
            "--keep",
            type=click.IntRange(0),
            default=KEPT_OF_A_SITE,
            show_default=True,
            metavar="N",
            help="Outstanding allocations of a site to save, with address, age and process; in "
            f"all at most {SITES_KEPT_WHOLE} times as many.",
        ),
        click.option("-o", "--output", "path", metavar="FILE", type=click.Path(), help=says),
    )
