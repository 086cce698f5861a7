"""The screen of the live view, on a terminal that is a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from textwrap import indent

import pytest

LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"
SHOW_CURSOR = b"\x1b[?12l\x1b[?25h"

BEGIN = """
import curses, os, signal, sys
from kleak.watch.screen import Screen
def interrupt(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, interrupt)
"""
WAIT = """
with Screen() as screen:
    screen.draw(["ready"])
    while True:
        screen.wait(60)
"""


class Terminal:
    """A program on a terminal of its own, with what it has written there."""

    def __init__(self, program: str, term: str) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.written = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", BEGIN + program],
            stdin=self.slave, stdout=self.slave, stderr=subprocess.DEVNULL,
            env={**os.environ, "TERM": term, "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )  # fmt: skip

    def read_until(self, text: bytes) -> None:
        while text not in self.written:
            assert select.select([self.master], [], [], 60)[0], self.written
            self.written += os.read(self.master, 65536)

    def end(self) -> int:
        """Wait for its end, and read the rest. Returns its status."""
        status = self.process.wait(timeout=60)
        os.set_blocking(self.master, False)
        try:
            while data := os.read(self.master, 65536):
                self.written += data
        except BlockingIOError:
            pass
        return status


def run(program: str, *, term: str = "xterm", keys: bytes = b"") -> Terminal:
    """Run it to its end; ``keys`` are pressed once it has said that it is ready."""
    terminal = Terminal(program, term)
    if keys:
        terminal.read_until(b"ready")
        os.write(terminal.master, keys)
    assert terminal.end() == 0
    return terminal


@pytest.mark.parametrize(
    "ending",
    ["raise SystemExit(0)", "raise ValueError", "os.kill(os.getpid(), signal.SIGTERM)", "pass"],
    ids=["exit", "error", "signal", "return"],
)
@pytest.mark.parametrize("term", ["xterm", "dumb", "no-such-terminal"])
def test_it_is_left_as_it_was_found(ending: str, term: str) -> None:
    terminal = Terminal(f"with Screen() as screen:\n    screen.draw(['shown'])\n    {ending}", term)
    terminal.end()
    assert b"shown" in terminal.written
    assert termios.tcgetattr(terminal.slave) == terminal.before
    if term == "xterm":
        assert LEAVE_ALTERNATE_SCREEN in terminal.written.rpartition(b"shown")[2]
        assert SHOW_CURSOR in terminal.written.rpartition(b"shown")[2]
    else:
        assert b"\x1b" not in terminal.written


@pytest.mark.parametrize(
    "line", ["\x1b]0;title\x07", "a\x1b[2Jb", "\x9b2Jb", "\r\nx", "a\tb\x7f", "\u202ex"]
)
def test_no_line_moves_the_cursor_or_says_more_than_it_shows(line: str) -> None:
    plain = run("with Screen() as screen:\n    screen.draw(['plain'])").written
    written = run(f"with Screen() as screen:\n    screen.draw([{line!r}])").written
    for sequence in (b"\x1b]0", b"\x1b[2J", "\x9b".encode(), b"\x07"):
        assert written.count(sequence) == plain.count(sequence)


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"q", ["q"]),
        (b"\r", ["\n"]),
        (b"\x1b", ["\x1b"]),
        (b"\x1b[99~", ["\x1b[99~"]),
        ("é".encode(), ["é"]),
    ],
)
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_keys(typed: bytes, keys: list[str], term: str) -> None:
    program = """
with Screen() as screen:
    screen.draw(["ready"])
    print(repr(screen.wait(60)), end="", file=open("/dev/tty", "w"))
"""
    terminal = run(program.replace("/dev/tty", "/dev/fd/1"), term=term, keys=typed)
    assert repr(keys).encode() in terminal.written.replace(b"\x1b[", b"")


def test_keys_without_a_character() -> None:
    program = """
with Screen() as screen:
    screen.draw(["ready"])
    keys = screen.wait(60)
print(keys == [curses.KEY_NPAGE])
"""
    assert b"True" in run(program, keys=b"\x1b[6~").written


def test_a_stop_that_the_caller_ignores_stays_ignored() -> None:
    program = """
signal.signal(signal.SIGTSTP, signal.SIG_IGN)
with Screen() as screen:
    os.kill(os.getpid(), signal.SIGTSTP)
    screen.draw(["goes on"])
"""
    assert b"goes on" in run(program).written


def test_a_terminal_that_goes_away_ends_the_wait() -> None:
    terminal = Terminal(
        "try:\n" + indent(WAIT, "  ") + "except KeyboardInterrupt: sys.exit(7)", "xterm"
    )
    terminal.read_until(b"ready")
    os.close(terminal.slave)
    os.close(terminal.master)
    assert terminal.process.wait(timeout=30) == 7


def test_another_size_ends_the_wait() -> None:
    program = """
with Screen() as screen:
    screen.draw(["ready"])
    screen.wait(60)
    print(screen.size.columns)
"""
    terminal = Terminal(program, "xterm")
    terminal.read_until(b"ready")
    began = time.monotonic()
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 132, 0, 0))
    assert terminal.end() == 0
    assert time.monotonic() - began < 30
    assert b"132" in terminal.written
