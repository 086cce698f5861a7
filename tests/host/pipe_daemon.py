"""The load of test_run: a daemon that keeps pipes open, left behind by a command that ends.

Arguments: pipes, seconds that the daemon lives. Its process id is added to ./daemons.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Leave a daemon behind, and return once it has its pipes."""
    pipes, seconds = int(sys.argv[1]), float(sys.argv[2])
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        for _ in range(pipes):
            os.pipe()
        with Path("daemons").open("a") as daemons:
            daemons.write(f"{os.getpid()}\n")
        os.write(writer, b"1")
        os.close(reader), os.close(writer)
        null = os.open("/dev/null", os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        time.sleep(seconds)
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)


if __name__ == "__main__":
    main()
