"""What is put back when kleak ends, however it ends: SIGKILL and a crash too."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Guard:
    """A process that waits for the end of this one, or of a context, and runs a command then."""

    def __init__(self, *command: str) -> None:
        """Start it. ``command``: what puts things back, without a shell."""
        self.put_back = False
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", 'trap "" HUP INT TERM; read -r _; exec "$@"', "kleak", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Guard:
        """Nothing happens on the way in."""
        return self

    def __exit__(self, *_: object) -> None:
        """Have the command run, and wait for it; ``put_back`` is whether it succeeded."""
        self._process.communicate()  # ends its input
        self.put_back = self._process.returncode == 0


@contextmanager
def held_text(path: Path, during: str, after: str) -> Iterator[Guard]:
    """Write ``during`` to a file of the kernel within the context, and ``after`` at its end.

    Yields the guard that does so. Raises OSError if the file refuses.
    """
    with Guard("/bin/sh", "-c", 'echo "$1" >"$0"', str(path), after) as guard:
        path.write_text(during)
        yield guard
