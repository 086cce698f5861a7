"""An interactive shell on a terminal of its own, for tests that press keys in it."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LIMIT_S = 120.0


class Shell:
    """What is typed into it is answered in ``seen``."""

    def __init__(self, fd: int) -> None:
        self.seen = ""
        self._fd = fd

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_for(self, text: str) -> str:
        """Wait until ``text`` is seen; fail if it never is. Return what was seen before it."""
        end = time.monotonic() + LIMIT_S
        while text not in self.seen:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self._fd, 65536).decode(errors="replace")
        before, self.seen = self.seen.split(text, 1)
        return before


@contextmanager
def interactive(argv: Sequence[str], home: Path) -> Iterator[Shell]:
    """Run the shell ``argv`` with this tree's kleak first on its PATH, and end it."""
    pid, fd = pty.fork()
    if pid == 0:
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        os.execvpe(argv[0], argv, {"PATH": path, "HOME": str(home), "TERM": "dumb", "PS1": "> "})
    try:
        yield Shell(fd)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)
