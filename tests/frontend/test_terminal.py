"""Colours only on a terminal that wants them, in every command that has them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from tests.support.paths import TOP

SAMPLE = TOP / "tests/data/sessions/v1/6.12--leaky.kleak"
TAR = "6.12--vmalloc-kmalloc-and-page-leak.tar.gz"
COMMANDS = {
    "report": ["report", str(SAMPLE)],
    "analyze": ["analyze", str(TOP / "tests/data/snapshots" / TAR)],
    "doctor": ["doctor"],
}
ESCAPE = b"\x1b["


def on_terminal(arguments, **environment):
    """Return what kleak writes to a terminal as its standard output."""
    master, slave = pty.openpty()
    base = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "kleak", *arguments],
        stdout=slave, stderr=subprocess.DEVNULL, env={**base, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(slave)
    written = b""
    while True:
        try:
            written += os.read(master, 65536)
        except OSError:  # EIO: the last writer has gone
            break
    os.close(master)
    process.wait()
    assert written
    return written


@pytest.mark.parametrize(
    ("command", "environment", "colored"),
    [
        ("report", {}, True),
        ("report", {"NO_COLOR": ""}, True),
        ("report", {"NO_COLOR": "1"}, False),
        ("report", {"TERM": "dumb"}, False),
        ("analyze", {}, True),
        ("analyze", {"NO_COLOR": "1"}, False),
        ("doctor", {}, True),
        ("doctor", {"NO_COLOR": "1"}, False),
    ],
)
def test_a_terminal_gets_colours_unless_it_wants_none(command, environment, colored):
    assert (ESCAPE in on_terminal(COMMANDS[command], **environment)) is colored


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_gets_none(command):
    done = subprocess.run(
        [sys.executable, "-m", "kleak", *COMMANDS[command]], capture_output=True, check=False
    )
    assert done.stdout
    assert ESCAPE not in done.stdout


def test_sizes_are_in_kb_or_with_bytes_exact():
    def report(*options):
        return subprocess.run(
            [sys.executable, "-m", "kleak", "report", str(SAMPLE), *options],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip

    assert "120 kB" in report()
    exact = report("--bytes")
    assert "122880 B" in exact
    assert "kB" not in exact
