"""A terminal that is redrawn and asked for keys, and is left as it was found on every way out."""

from __future__ import annotations

import codecs
import curses
import os
import re
import select
import signal
import termios
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, TextIO

_FALLBACK = os.terminal_size((80, 24))
_PADDING = re.compile(rb"\$<\d+[*/]*>")  # terminfo's request for a delay
_SIGNALS = (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)


class Screen:
    """Standard output as a screen, standard input as keys. Use as a context.

    Where terminfo knows how to move the cursor, lines are redrawn in place, and only those that
    changed; elsewhere (TERM=dumb) each picture is printed below the one before. Ctrl-Z and fg
    work; the size is asked for at each picture.
    """

    def __init__(self, keys: TextIO, out: TextIO) -> None:
        """``out`` is a terminal; ``keys`` may be none: then there are no keys."""
        self._in = keys.fileno() if keys.isatty() else None
        self._out = out.fileno()
        self._home = self._clear = self._to_end_of_line = self._to_end = b""
        self._begin = self._end = b""
        self._found: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._drawn: list[str] = []
        self._wake: tuple[int, int] | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ask_terminfo()

    def _ask_terminfo(self) -> None:
        try:
            curses.setupterm(fd=self._out)
        except curses.error:  # a TERM that terminfo does not know
            return
        self._home, self._to_end_of_line = _capability("home"), _capability("el")
        self._to_end, self._clear = _capability("ed"), _capability("clear")
        # The screen that full-screen programs have for themselves, and its cursor.
        self._begin = _capability("smcup") + _capability("civis")
        self._end = _capability("cnorm") + _capability("rmcup")

    @property
    def redraws(self) -> bool:
        """Whether pictures replace each other."""
        return bool(self._home and self._to_end_of_line and self._to_end and self._clear)

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines; 80 by 24 where the terminal does not tell, as on a serial line."""
        try:
            found = os.get_terminal_size(self._out)
        except OSError:
            return _FALLBACK
        return found if found.columns and found.lines else _FALLBACK

    def __enter__(self) -> Screen:
        """Take the terminal over."""
        if self._in is not None:
            self._found = termios.tcgetattr(self._in)
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = (reader, writer)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in _SIGNALS:
            if number == signal.SIGTSTP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # there is no shell that would continue it
            self._handlers[number] = signal.signal(number, self._handle)
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        for fd in self._wake or ():
            os.close(fd)

    def _take(self) -> None:
        if self._in is not None:
            tty.setcbreak(self._in)
        if self.redraws:
            self._write(self._begin + self._clear)
        self._drawn = []

    def _give_back(self) -> None:
        with suppress(OSError, termios.error):  # it may be gone, which is why we leave
            if self._in is not None and self._found is not None:
                termios.tcsetattr(self._in, termios.TCSADRAIN, self._found)
            if self.redraws:
                self._write(self._end or b"\r\n")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            self._give_back()
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
            # Here again once somebody has continued it.
            signal.signal(signal.SIGTSTP, self._handle)
        if number != signal.SIGWINCH:
            self._take()
        self._drawn = []

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, none of which may be wider than the terminal."""
        if not self.redraws:
            self._write("\n".join((*lines, "", "")).encode(errors="replace"))
            return
        out = self._home if self._drawn else self._clear
        for number, line in enumerate(lines):
            if number:
                out += b"\r\n"
            known = number < len(self._drawn) and self._drawn[number] == line
            if not known or number == len(lines) - 1:
                out += line.encode(errors="replace") + self._to_end_of_line
        self._drawn = list(lines)
        self._write(out + self._to_end)

    def wait(self, seconds: float) -> list[str]:
        """Return keys as soon as there are any; none after ``seconds``, or when resized."""
        sources = [fd for fd in (self._in, self._wake and self._wake[0]) if fd is not None]
        ready, _, _ = select.select(sources, [], [], max(0.0, seconds))
        if self._wake is not None and self._wake[0] in ready:
            os.read(self._wake[0], 4096)
        if self._in is None or self._in not in ready:
            return []
        typed = os.read(self._in, 1024)
        if not typed:
            raise KeyboardInterrupt  # the terminal is gone
        text = self._decoder.decode(typed)
        # A key that sends a sequence sends it at once.
        return [text] if text.startswith("\x1b") else list(text)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._out, data) :]


def _capability(name: str) -> bytes:
    return _PADDING.sub(b"", curses.tigetstr(name) or b"")
