"""Reading files that strangers may have made: no waiting, no device, no more than is expected."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, BinaryIO

from kleak.errors import UsageError
from kleak.files.output_files import own_descriptor

_PIECE_BYTES = 1 << 20


def open_input(path: Path | str, *, links: bool = True, dir_fd: int | None = None) -> BinaryIO:
    """Open a regular file for reading, or a pipe that this process was given (/dev/fd/63).

    Not a FIFO, at which kleak would wait for somebody, nor a device, which may act when it is
    opened. Raises UsageError for these, OSError where it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(path, flags if links else flags | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path} is a directory")
        given = stat.S_ISFIFO(mode) and dir_fd is None and own_descriptor(str(path)) is not None
        if not stat.S_ISREG(mode) and not given:
            raise UsageError(f"{path} is no regular file")
        os.set_blocking(fd, True)
        return open(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_input(path: Path | str, most_bytes: int) -> bytes:
    """Return the content of a file of at most ``most_bytes``.

    Raises UsageError for a longer one and as open_input() does, OSError where it cannot be read.
    """
    with open_input(path) as file:
        content = read_at_most(file, most_bytes)
    if content is None:
        raise UsageError(f"{path} is larger than {most_bytes >> 20} MiB: kleak will not read it")
    return content


def read_at_most(file: IO[bytes], most_bytes: int) -> bytes | None:
    """Return the rest of ``file``; None if it is longer. Memory is taken as it is filled."""
    pieces = []
    left = most_bytes
    while piece := file.read(min(_PIECE_BYTES, left + 1)):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            return None
    return b"".join(pieces)
