"""The command line as a whole: errors become one line and a status."""

from __future__ import annotations

import subprocess
import sys

import pytest

BREAK = (
    "import sys, kleak.commands.explain as broken\n"
    "def fail(*_, **__): raise {error}\n"
    "broken.explain.callback = fail\n"
    "from kleak.cli import main\n"
    "sys.argv = ['kleak', *sys.argv[1:]]\n"
    "main()"
)


def kleak(*arguments: str, error: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BREAK.format(error=error), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        ("ValueError('odd')", 70, "kleak: ValueError: odd (a defect of kleak: --debug shows where,"
         " please report it)"),
        ("OSError(2, 'No such file or directory', 'x')", 3, "kleak: x: No such file or directory"),
        ("KeyboardInterrupt", 130, "kleak: interrupted"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(error: str, status: int, line: str) -> None:
    result = kleak("explain", error=error)
    assert (result.returncode, result.stderr.lstrip("\n")) == (status, line + "\n")


def test_debug_shows_the_traceback() -> None:
    result = kleak("--debug", "explain", error="ValueError('odd')")
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1] == "ValueError: odd"
