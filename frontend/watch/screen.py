"""A terminal that is redrawn and asked for keys, and is left as it was found on every way out."""

from __future__ import annotations

import curses
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

_FALLBACK = os.terminal_size((80, 24))
_SLICE_S = 0.2
_ESCAPE_MS = 25  # for the rest of a key's sequence: it is sent at once

Key = str | int
"""A character, or the number that curses has for a key without one (curses.KEY_NPAGE)."""


class Screen:
    """Standard output, a terminal, as a screen; standard input as keys, if it is one. A context.

    Where curses cannot move the cursor (TERM=dumb), each picture is printed below the one before,
    and keys are still asked for. Ctrl-Z and fg work; the size is asked for at each picture.
    """

    def __init__(self) -> None:
        """Nothing is changed before the context begins."""
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._window: curses.window | None = None
        self._found: list[Any] | None = None
        self._continued: Any = None
        self._drawn_size = _FALLBACK
        self._lost = False

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines; 80 by 24 where the terminal does not tell, as on a serial line."""
        try:
            found = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return _FALLBACK
        return found if found.columns and found.lines else _FALLBACK

    @property
    def redraws(self) -> bool:
        """Whether pictures replace each other."""
        return self._window is not None

    def __enter__(self) -> Screen:
        """Take the terminal over."""
        if self._keys is not None:
            self._found = termios.tcgetattr(self._keys)
        try:
            if _can_draw():
                self._begin()
            elif self._keys is not None:
                tty.setcbreak(self._keys)
            self._continued = signal.signal(signal.SIGCONT, self._lose)
        except BaseException:
            self._give_back()
            raise
        return self

    def _begin(self) -> None:
        self._window = curses.initscr()
        with suppress(curses.error):  # a terminal that cannot hide its cursor
            curses.curs_set(0)
        if self._keys is None:
            return
        curses.noecho()
        curses.cbreak()
        curses.set_escdelay(_ESCAPE_MS)
        self._window.keypad(True)
        self._window.nodelay(True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        signal.signal(signal.SIGCONT, self._continued)
        self._give_back()

    def _give_back(self) -> None:
        if self._window is not None:
            with suppress(curses.error):  # the terminal may be gone, which is why we leave
                # The shell goes on in this line where there is no second screen.
                self._window.move(self._window.getmaxyx()[0] - 1, 0)
                self._window.clrtoeol()
                self._window.refresh()
                curses.endwin()
        with suppress(OSError, termios.error):
            if self._keys is not None and self._found is not None:
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._found)

    def _lose(self, number: int, frame: FrameType | None) -> None:
        self._lost = True

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, of printable characters, and cut what is wider than the terminal."""
        size = self.size
        self._drawn_size = size
        if self._window is None:
            text = "\n".join((*lines, "", ""))
            sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "replace"))
            sys.stdout.flush()
            return
        if curses.is_term_resized(size.lines, size.columns):
            curses.resizeterm(size.lines, size.columns)
        if self._lost:
            self._lost = False
            curses.reset_prog_mode()
            self._window.redrawwin()
        self._window.erase()
        for number, line in enumerate(lines[: size.lines]):
            shown = line.encode(self._window.encoding, "replace").decode(self._window.encoding)
            with suppress(curses.error):  # the last cell: the cursor has nowhere to go
                self._window.addnstr(number, 0, shown, size.columns)
        self._window.refresh()

    def wait(self, seconds: float) -> list[Key]:
        """Return keys as soon as there are any; none after ``seconds``, or where the picture is
        not as it was drawn any more. Raises KeyboardInterrupt where the terminal is gone.
        """
        end = time.monotonic() + seconds
        poll = select.poll()
        if self._keys is not None:
            poll.register(self._keys, select.POLLIN)
        while True:
            left = end - time.monotonic()
            for _, event in poll.poll(1000 * max(0.0, min(left, _SLICE_S))):
                if event & ~select.POLLIN:
                    raise KeyboardInterrupt
                return self._read()
            if left <= 0 or (self.redraws and (self._lost or self.size != self._drawn_size)):
                return []

    def _read(self) -> list[Key]:
        keys: list[Key] = []
        if self._window is None:
            assert self._keys is not None
            typed = os.read(self._keys, 1024)
            if not typed:
                raise KeyboardInterrupt
            keys += typed.decode(errors="replace")
        else:
            with suppress(curses.error):  # no more of them
                while True:
                    keys.append(self._window.get_wch())
        return _sequences(keys)


def _sequences(keys: Sequence[Key]) -> list[Key]:
    """``keys`` with what follows ESC at once as one key: a sequence that curses does not know."""
    found: list[Key] = []
    for key in keys:
        last = found[-1] if found else None
        if isinstance(key, str) and isinstance(last, str) and last.startswith("\x1b"):
            found[-1] = last + key
        elif key != curses.KEY_RESIZE:
            found.append(key)
    return found


def _can_draw() -> bool:
    try:
        curses.setupterm(fd=sys.stdout.fileno())
    except curses.error:  # a TERM that terminfo does not know
        return False
    return all(curses.tigetstr(name) for name in ("cup", "clear", "el"))
