"""What a long command is doing: one line that renews itself on a terminal, nothing in a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Protocol


class Progress(Protocol):
    """Is told what happens now."""

    def say(self, text: str) -> None:
        """Show ``text`` in place of what was shown before."""

    def done(self) -> None:
        """Take the line away: something else is to be printed."""


class Silence:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Ignore it."""

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
    """Return a line if standard error is a terminal that can renew it, silence otherwise."""
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return TerminalLine()
    return Silence()
