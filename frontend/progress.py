"""What a long command is doing: one line that renews itself on a terminal, now and then a line of
its own elsewhere.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Protocol


class Progress(Protocol):
    """Is told what happens now."""

    def say(self, text: str) -> None:
        """Show ``text`` in place of what was shown before."""

    def done(self) -> None:
        """Take the line away: something else is to be printed."""


FIRST_LINE_S = 10.0
MOST_BETWEEN_LINES_S = 600.0


class Lines:
    """Prints a line after 10 s, 20 s, 40 s, and so on: logs of short runs stay empty, and those of
    long ones short.
    """

    def __init__(self) -> None:
        """The time begins."""
        self._pause = FIRST_LINE_S
        self._due = time.monotonic() + self._pause

    def say(self, text: str) -> None:
        """Print ``text`` if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        with suppress(OSError):  # no capture ends because nobody reads of its progress
            sys.stderr.write(f"progress: {text}\n")
            sys.stderr.flush()
        self._due = now + self._pause
        self._pause = min(2 * self._pause, MOST_BETWEEN_LINES_S)

    def done(self) -> None:
        """There is nothing to take away."""


class TerminalLine:
    """Shows one line on standard error, cut to the terminal's width."""

    def say(self, text: str) -> None:
        """Show ``text`` in place of what was shown before."""
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r\x1b[K" + text[:width])
        sys.stderr.flush()

    def done(self) -> None:
        """Clear the line."""
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def make_progress() -> Progress:
    """Return a line if standard error is a terminal that can renew it, lines otherwise."""
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return TerminalLine()
    return Lines()


@contextmanager
def keep_saying(progress: Progress, text: str) -> Iterator[None]:
    """Show ``text`` within the context, and for how long: for what takes minutes on a slow machine
    and says nothing meanwhile.
    """
    began, over = time.monotonic(), Event()

    def say() -> None:
        while not over.wait(1.0):
            progress.say(f"{text} ({time.monotonic() - began:.0f} s)")

    progress.say(text)
    teller = Thread(target=say, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
