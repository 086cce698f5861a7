"""The load of test_run: files opened by io_uring's workers, and kept by a daemon.

Argument: how many files. The daemon's process id is added to ./daemons. Needs 64-bit Linux.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import sys
from pathlib import Path

SETUP, ENTER = 425, 426  # system calls, of every machine
PARAMS_BYTES, SQE_BYTES = 120, 64
SQ_RING, SQES = 0, 0x10000000  # where mmap() finds them
OPENAT, ASYNC, GETEVENTS, AT_FDCWD = 18, 1 << 4, 1, -100
ENTRIES = 256

libc = ctypes.CDLL(None, use_errno=True)


def set_up(entries: int) -> tuple[int, bytes]:
    """Return a ring's file descriptor and its struct io_uring_params. Raises OSError."""
    params = ctypes.create_string_buffer(PARAMS_BYTES)
    ring = libc.syscall(SETUP, entries, params)
    if ring < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return ring, params.raw


def main() -> None:
    """Open the files, none of them by this task itself, and leave a daemon behind."""
    files = int(sys.argv[1])
    ring, params = set_up(ENTRIES)
    sq_entries, cq_entries = struct.unpack_from("II", params)
    _, tail_at, _, _, _, _, array_at = struct.unpack_from("7I", params, 40)
    cqes_at = struct.unpack_from("6I", params, 80)[5]
    # One mapping holds both rings (IORING_FEAT_SINGLE_MMAP, since v5.4).
    rings_bytes = max(array_at + 4 * sq_entries, cqes_at + 16 * cq_entries)
    rings = mmap.mmap(ring, rings_bytes, offset=SQ_RING)
    sqes = mmap.mmap(ring, SQE_BYTES * sq_entries, offset=SQES)
    path = ctypes.create_string_buffer(os.devnull.encode())  # of an overlay each would be two
    for number in range(files):
        struct.pack_into(
            "BBHiQQII", sqes, SQE_BYTES * number,
            OPENAT, ASYNC, 0, AT_FDCWD, 0, ctypes.addressof(path), 0, os.O_RDONLY,
        )  # fmt: skip
        struct.pack_into("I", rings, array_at + 4 * number, number)
    struct.pack_into("I", rings, tail_at, files)
    if libc.syscall(ENTER, ring, files, files, GETEVENTS, None, 0) != files:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    results = [struct.unpack_from("Qi", rings, cqes_at + 16 * number)[1] for number in range(files)]
    if min(results) < 0:
        raise OSError(-min(results), os.strerror(-min(results)))
    if (daemon := os.fork()) != 0:
        with Path("daemons").open("a") as daemons:
            daemons.write(f"{daemon}\n")
        return
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    signal.pause()


if __name__ == "__main__":
    main()
