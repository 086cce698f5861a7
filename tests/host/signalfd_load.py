"""The load of test_engine: signalfds made and closed by several processes, some kept open.

Arguments: processes, signalfds made and closed by each, signalfds kept. A child that keeps its
signalfds outlives this program until somebody kills the process whose number is in ./keeper.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
EMPTY_SET = ctypes.create_string_buffer(128)


def make() -> int:
    """Return a new signalfd: do_signalfd4() allocates a context and a file for it."""
    fd = int(libc.signalfd(-1, EMPTY_SET, 0))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return fd


def main() -> None:
    """Make the load; return when all but the kept signalfds are closed."""
    processes, made, kept = map(int, sys.argv[1:])
    reader, writer = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.setsid()
        fds = [make() for _ in range(kept)]
        os.write(writer, b"%d" % len(fds))
        os.close(1), os.close(2)
        time.sleep(600)
        os._exit(0)
    os.read(reader, 16)
    Path("keeper").write_text(str(keeper))
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            for _ in range(made):
                os.close(make())
            os._exit(0)
        children.append(child)
    for child in children:
        _, status = os.waitpid(child, 0)
        if status != 0:
            os.kill(keeper, signal.SIGKILL)
            sys.exit(1)


if __name__ == "__main__":
    main()
