"""Runs one command inside the guest of ``kleak vm`` and leaves its exit status for the host.

The guest starts this file by its path with ``python -I``, so it imports nothing of the project.
Its only argument is the directory that host and guest share. There it reads ``job.json`` and
writes ``started`` (the guest is up) and ``status`` (the command's exit status, in decimal).
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
import threading
import tty
from pathlib import Path

DRAIN_LIMIT_S = 5.0
"""How long output is still read after the command ended: a daemon may hold the terminal open."""


def open_terminal(size: list[int]) -> tuple[int, int]:
    """Open a raw pseudo-terminal of ``size`` rows and columns; return (master, slave)."""
    master, slave = os.openpty()
    tty.setraw(slave)  # or "\n" would arrive as "\r\n"
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))
    return master, slave


def pump(source: int, sink: int) -> None:
    """Copy ``source`` to ``sink`` until the last writer of the terminal has gone."""
    while True:
        try:
            data = os.read(source, 65536)
        except OSError:  # EIO is how a pseudo-terminal says end of file
            return
        while data:
            data = data[os.write(sink, data) :]


def run(job: dict[str, object]) -> int:
    """Run ``job`` and return its exit status as a shell would give it."""
    slaves: dict[str, int] = {}
    pumps: list[threading.Thread] = []
    terminals = job["terminals"]
    assert isinstance(terminals, dict)
    for name, sink in (("stdout", 1), ("stderr", 2)):
        if terminals[name] is not None:
            master, slaves[name] = open_terminal(terminals[name])
            pumps.append(threading.Thread(target=pump, args=(master, sink), daemon=True))
    argv, cwd, environment = job["argv"], job["cwd"], job["environment"]
    assert isinstance(argv, list)
    assert isinstance(cwd, str)
    assert isinstance(environment, dict)
    try:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=slaves.get("stdout"),
            stderr=slaves.get("stderr"),
        )
    except OSError as error:
        print(f"kleak vm: cannot run {argv[0]} in the guest: {error}", file=sys.stderr)
        return 127
    for slave in slaves.values():
        os.close(slave)
    for thread in pumps:
        thread.start()
    status = process.wait()
    for thread in pumps:
        thread.join(DRAIN_LIMIT_S)
    return status if status >= 0 else 128 - status


def main() -> None:
    """Run the job of the shared directory ``sys.argv[1]``."""
    shared = Path(sys.argv[1])
    job = json.loads((shared / "job.json").read_text(encoding="utf-8"))
    (shared / "started").touch()
    status = run(job)
    # Renamed into place, so that the host never reads half a number.
    fresh = shared / "status.new"
    fresh.write_text(f"{status}\n", encoding="ascii")
    fresh.rename(shared / "status")


if __name__ == "__main__":
    main()
