"""Opens so many of each kind of thing that the kernel allocates for, and holds them."""

import os
import select
import socket
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Take the number and the file to write the pid to from the arguments."""
    number, pid_file = int(sys.argv[1]), Path(sys.argv[2])
    held = []
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(number)
    for _ in range(number):
        reading, writing = os.pipe()
        os.write(writing, b"x")
        event, poll = os.eventfd(0), select.epoll()
        poll.register(event)
        poll.register(reading)
        file = tempfile.TemporaryFile()  # noqa: SIM115
        file.write(b"x" * 5000)
        file.flush()
        connected = socket.create_connection(listener.getsockname())
        connected.send(b"y" * 3000)
        held += [reading, writing, event, poll, file, connected, listener.accept()]
        held += [socket.socketpair(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
    written = pid_file.with_suffix(".new")
    written.write_text(str(os.getpid()))
    written.rename(pid_file)
    while True:
        time.sleep(3600)


main()
