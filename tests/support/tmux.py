"""A terminal to press keys in and to look at: tmux, on a server of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType

import pytest

PATIENCE_S = 300.0


class Tmux:
    """A shell in a terminal of 80 columns and 24 lines. Use as a context."""

    def __init__(self, place: Path) -> None:
        """``place``: the shell's directory, and the server's socket."""
        if shutil.which("tmux") is None:
            pytest.skip("needs tmux")
        self._place = place

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(self._place / "tmux"), "-f", "/dev/null", *arguments],
            cwd=self._place,
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        ).stdout

    def __enter__(self) -> Tmux:
        """Start it."""
        self._run("new-session", "-d", "-x", "80", "-y", "24", "-n", "test", "env PS1=ready: sh")
        self.wait_for("ready:")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, and what runs in it."""
        self._run("kill-server")

    def type(self, text: str) -> None:
        """Press the keys of ``text``, literally."""
        self._run("send-keys", "-t", "test", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names for them: Enter, C-z, PageDown."""
        self._run("send-keys", "-t", "test", *keys)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self._run("resize-window", "-t", "test", "-x", str(columns), "-y", str(lines))

    def screen(self) -> list[str]:
        """Return what the terminal shows."""
        return self._run("capture-pane", "-t", "test", "-p").splitlines()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the screen matches ``pattern`` somewhere; fail with it if it never does."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            text = "\n".join(self.screen())
            if found := re.search(pattern, text, re.MULTILINE):
                return found
            if time.monotonic() > give_up:
                pytest.fail(f"never showed {pattern}:\n{text}")
            time.sleep(0.1)
