"""The load of test_stress: POSIX messages, message queues and io_uring instances, on every CPU.

Arguments: what, seconds. Of "messages", one process on each CPU sends and another, on the next
CPU, receives: what is allocated on one is freed on the other. What "queues" and "rings" make is
freed by RCU callbacks too (in softirqs), by task work and by kernel workers; pages and per-CPU
memory are among it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
IO_URING_SETUP = 425
PARAMETERS = ctypes.create_string_buffer(120)


class QueueAttributes(ctypes.Structure):
    """struct mq_attr."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("flags", "most", "size", "now", "a", "b",
                                                        "c", "d"))  # fmt: skip


def checked(result: int, what: str) -> int:
    """Return a system call's result; raise OSError where it failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def use_queue(librt: ctypes.CDLL, name: bytes) -> None:
    """Make a message queue, leave messages of several sizes in it, and remove it."""
    attributes = QueueAttributes(0, 8, 4096)
    flags = os.O_CREAT | os.O_RDWR | os.O_EXCL
    queue = checked(librt.mq_open(name, flags, 0o600, ctypes.byref(attributes)), "mq_open")
    for size in (1, 100, 1000, 4096, 3000):
        checked(librt.mq_send(queue, b"x" * size, size, size % 7), "mq_send")
    checked(librt.mq_receive(queue, ctypes.create_string_buffer(4096), 4096, None), "mq_receive")
    checked(librt.mq_close(queue), "mq_close")
    checked(librt.mq_unlink(name), "mq_unlink")


def use_ring() -> None:
    """Make an io_uring instance and close it."""
    ctypes.memset(PARAMETERS, 0, 120)
    os.close(checked(libc.syscall(IO_URING_SETUP, 64, PARAMETERS), "io_uring_setup"))


def pass_messages(librt: ctypes.CDLL, name: bytes, cpus: tuple[int, int], end: float) -> None:
    """Send from one CPU and receive on another until ``end``; leave the queue empty."""
    attributes = QueueAttributes(0, 8, 8192)
    queue = checked(librt.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, ctypes.byref(attributes)),
                    "mq_open")  # fmt: skip
    checked(librt.mq_unlink(name), "mq_unlink")
    buffer = ctypes.create_string_buffer(8192)
    receiver = os.fork()
    if receiver == 0:
        os.sched_setaffinity(0, {cpus[1]})
        while checked(librt.mq_receive(queue, buffer, 8192, None), "mq_receive") != 1:
            pass
        os._exit(0)
    os.sched_setaffinity(0, {cpus[0]})
    number = 0
    while time.monotonic() < end:
        number += 1
        size = 2 + number * 7919 % 8190
        checked(librt.mq_send(queue, buffer, size, 0), "mq_send")
    checked(librt.mq_send(queue, buffer, 1, 0), "mq_send")
    if os.waitpid(receiver, 0)[1] != 0:
        raise OSError(0, "the receiver failed")


def run(kind: str, cpus: tuple[int, int], end: float) -> None:
    """Do one kind of work on one CPU until ``end``."""
    os.sched_setaffinity(0, {cpus[0]})
    librt = ctypes.CDLL("librt.so.1", use_errno=True)
    if kind == "messages":
        pass_messages(librt, f"/kleak-{os.getpid()}".encode(), cpus, end)
        return
    number = 0
    while time.monotonic() < end:
        number += 1
        if kind == "queues":
            use_queue(librt, f"/kleak-{os.getpid()}-{number}".encode())
        else:
            use_ring()


def main() -> None:
    """Work on every CPU."""
    kind, seconds = sys.argv[1], float(sys.argv[2])
    end = time.monotonic() + seconds
    children = []
    every = sorted(os.sched_getaffinity(0))
    for place, cpu in enumerate(every):
        child = os.fork()
        if child == 0:
            try:
                run(kind, (cpu, every[(place + 1) % len(every)]), end)
            except OSError as error:
                print(error, file=sys.stderr)
                os._exit(1)
            os._exit(0)
        children.append(child)
    status = [os.waitpid(child, 0)[1] for child in children]
    if any(status):
        signal.raise_signal(signal.SIGABRT)


if __name__ == "__main__":
    main()
