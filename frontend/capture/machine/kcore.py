"""The kernel's memory, as /proc/kcore gives it: an ELF file."""

from __future__ import annotations

import errno
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

KCORE = Path("/proc/kcore")


class KernelMemory:
    """Where in the file the kernel's addresses are."""

    def __init__(self, fd: int, segments: Sequence[tuple[int, int, int]]) -> None:
        """Read from ``fd``. ``segments``: first address, address behind it, place in the file."""
        self._fd = fd
        self._segments = sorted(segments)
        self._starts = [start for start, _, _ in self._segments]

    def read(self, address: int, size_bytes: int) -> bytes:
        """Read up to ``size_bytes`` from ``address`` on; nothing where the file has none of it."""
        position = bisect_right(self._starts, address) - 1
        if position < 0:
            return b""
        start, end, offset = self._segments[position]
        if address + size_bytes > end:
            return b""
        try:
            return os.pread(self._fd, size_bytes, offset + address - start)
        except (OSError, OverflowError):
            return b""  # the kernel refuses the page, or no file has such an offset: no evidence


def words(data: bytes) -> array[int]:
    """The words of ``data``, which begins with one; a part of one at the end is left out."""
    found = array("Q")
    found.frombytes(data[: len(data) // found.itemsize * found.itemsize])
    return found


@contextmanager
def kernel_memory(path: Path = KCORE) -> Iterator[KernelMemory]:
    """Open the file. Raises OSError where that is refused, or where it is no ELF file."""
    # Here, and not at each start: it takes a while to import, and not all kernels have the file.
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    with path.open("rb", buffering=0) as file:
        try:
            segments = [
                (one["p_vaddr"], one["p_vaddr"] + one["p_memsz"], one["p_offset"])
                for one in ELFFile(file).iter_segments("PT_LOAD")
            ]
        except ELFError as error:
            raise OSError(errno.ENOEXEC, str(error), str(path)) from error
        yield KernelMemory(file.fileno(), segments)
