"""What comes out of a guest: its command's output, and its console."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

CONSOLE_LINES = 200

Sink = Callable[[bytes], object]


class Output:
    """Hands the pieces of one stream on, or keeps them in ``kept``. ``error``: of the sink."""

    def __init__(self, sink: Sink | None) -> None:
        """Without ``sink`` they are kept."""
        self.kept = bytearray()
        self.error: OSError | None = None
        self._sink = sink

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._sink is None:
            self.kept += data
        elif self.error is None:
            try:
                self._sink(data)
            except OSError as error:  # a closed pipe: who waits sees it and ends the guest
                self.error = error


class Console:
    """The last lines of the guest's console, in ``lines``."""

    def __init__(self) -> None:
        """Start with no lines."""
        self.lines: deque[str] = deque(maxlen=CONSOLE_LINES)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the console, which may end anywhere in a line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\t]", "", line.decode("latin-1"))
            if text.strip():
                self.lines.append(text.rstrip())

    def panic(self) -> str | None:
        """Return the panic as one line if the console holds one (kernel/panic.c, panic())."""
        for line in self.lines:
            _, found, reason = line.partition("Kernel panic - not syncing: ")
            if found:
                return f"the guest kernel panicked: {reason.strip()}"
        return None


@dataclass(frozen=True, slots=True)
class End:
    """The end of a pipe to write to, and the thread that reads the other."""

    fd: int
    thread: threading.Thread


def reader(output: Output | Console) -> End:
    """Return the end of a pipe to write to; a thread feeds ``output`` from the other end."""
    source, sink = os.pipe()

    def read() -> None:
        with open(source, "rb", buffering=0) as pipe:
            while data := pipe.read(65536):
                output.feed(data)

    thread = threading.Thread(target=read, name="kleak-vm-output", daemon=True)
    thread.start()
    return End(sink, thread)
