"""Hearing of modules that come and go, by the kernel's uevents.

They only wake up: what was loaded when is what the program on module_load wrote down. A uevent may
be lost, comes late, and for a load whose init fails there is none.
"""

from __future__ import annotations

import select
import socket
import time
from types import TracebackType

_NETLINK_KOBJECT_UEVENT = 15  # include/uapi/linux/netlink.h
_KERNEL_GROUP = 1  # udev sends what it made of them to another one
_LARGEST = 1 << 16


class ModuleNews:
    """Waits for modules. Use as a context. Where uevents cannot be had, time passes instead."""

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._socket: socket.socket | None = None

    def __enter__(self) -> ModuleNews:
        """Subscribe."""
        news = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_KOBJECT_UEVENT)
        try:
            news.bind((0, _KERNEL_GROUP))
        except OSError:
            news.close()
        else:
            news.setblocking(False)
            self._socket = news
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unsubscribe."""
        if self._socket is not None:
            self._socket.close()

    def fileno(self) -> int | None:
        """Return the descriptor that becomes readable, None where uevents cannot be had."""
        return None if self._socket is None else self._socket.fileno()

    def drain(self) -> None:
        """Read all that has come."""
        if self._socket is not None:
            _tells_of_module(self._socket)

    def wait(self, seconds: float) -> None:
        """Return when the kernel says that a module came or went, after ``seconds`` at most."""
        give_up = time.monotonic() + seconds
        while (left := give_up - time.monotonic()) > 0:
            news = [] if self._socket is None else [self._socket]
            readable, _, _ = select.select(news, [], [], left)
            if any(_tells_of_module(one) for one in readable):
                return


def _tells_of_module(news: socket.socket) -> bool:
    """Read all that has come, and return whether any of it was about a module."""
    found = False
    while True:
        try:
            found = b"\0SUBSYSTEM=module\0" in news.recv(_LARGEST) or found
        except BlockingIOError:
            return found
        except OSError:  # ENOBUFS: there were more than it could hold, so who knows
            return True
