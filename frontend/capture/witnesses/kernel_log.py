"""The kernel log while a capture goes on, from /dev/kmsg: only what comes after its start."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from kleak.model.witnesses import USED, WitnessState, absent, incomplete

KMSG = "/dev/kmsg"
# A record is at most PRINTKRB_RECORD_MAX of kernel/printk/printk.c (1024) and its properties.
_RECORD_BYTES = 8192
# What a kernel in trouble may write in the time of a capture is not bounded; a session is.
MOST_BYTES = 1 << 20


class KernelLog:
    """Follows the log. Use as a context; :meth:`read` as often as its ring may fill up."""

    def __init__(self) -> None:
        """Nothing is opened yet."""
        self._fd: int | None = None
        self._records: list[bytes] = []
        self._size = 0
        self._overwritten = False
        self._left_out = 0
        self._refused = "not read"
        self._broken: str | None = None

    def __enter__(self) -> KernelLog:
        """Begin here. A kernel without the file, or a refusal, is no error."""
        try:
            self._fd = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            self._refused = f"{KMSG}: {error.strerror}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def state(self) -> WitnessState:
        """What a report says of this witness."""
        if self._fd is None:
            return absent(str(self._refused))
        if self._broken is not None:
            return incomplete(self._broken)
        if self._overwritten:
            return incomplete("the kernel overwrote records before they were read")
        if self._left_out:
            return incomplete(f"{self._left_out} records beyond {MOST_BYTES >> 20} MB left out")
        return USED

    def read(self) -> str | None:
        """Return all records since the start, as the file has them; None without the file."""
        if self._fd is None:
            return None
        while True:
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    # The next read goes on with the oldest record that there still is.
                    self._overwritten = True
                    continue
                if error.errno != errno.EAGAIN:
                    self._broken = f"{KMSG}: {error.strerror}"
                break
            if self._size + len(record) > MOST_BYTES:
                self._left_out += 1
                continue
            self._records.append(record)
            self._size += len(record)
        return b"".join(self._records).decode(errors="backslashreplace")
