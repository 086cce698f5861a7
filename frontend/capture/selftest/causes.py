"""Ways to make the kernel allocate a known number of objects of one kind, and to have them freed.

What else the kernel allocates on the way is prepared before anything counts. Each number is a
prime of its own, so that the objects of one kind are told from all others by how many they are.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
from abc import ABC, abstractmethod

from kleak.capture.engine.bpf_syscall import Command, MapCreation, allocate

_ARRAY, _PERCPU_ARRAY = 2, 6  # enum bpf_map_type
_F_SETPIPE_SZ = 1031
_SMALL_PIPE, _LARGE_PIPE = 1 << 16, 1 << 20
_AREA_BYTES = 1 << 18  # the kernel takes an area above 32 kB
_NO_OPERATION = b"\x01\x01\x01\x01"  # IP options

_libc = ctypes.CDLL(None, use_errno=True)


class Cause(ABC):
    """One kind. ``families`` are those of the ledger that may hold it. ``patience_s``: how long the
    kernel may take to free it. No longer is waited: an address that is given out again would be
    freed by somebody else.
    """

    kind: str
    number: int
    families: frozenset[str]
    patience_s = 0.01

    def __init__(self) -> None:
        """Prepare. Raises OSError where this machine has not what it takes."""
        self._fds: list[int] = []

    @abstractmethod
    def hold(self) -> None:
        """Have the objects allocated, ``number`` of them on one stack. Raises OSError."""

    @abstractmethod
    def release(self) -> None:
        """Have them freed."""

    def close(self) -> None:
        """Give back what is left, and what was prepared. May be called twice."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


class Kmalloc(Cause):
    """The context of an eventfd: kmalloc() and kfree()."""

    kind = "kmalloc"
    number = 11
    families = frozenset({"kmalloc"})

    def hold(self) -> None:
        """See Cause."""
        for _ in range(self.number):
            fd = _libc.eventfd(0, os.O_CLOEXEC)
            if fd < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            self._fds.append(fd)

    def release(self) -> None:
        """See Cause."""
        self.close()


class _Pipes(Cause):
    """So many pipes."""

    def __init__(self) -> None:
        super().__init__()
        try:
            for _ in range(self.number):
                self._fds += os.pipe()
                fcntl.fcntl(self._fds[-1], _F_SETPIPE_SZ, _SMALL_PIPE)
        except OSError:
            self.close()
            raise


class LargeKmalloc(_Pipes):
    """The ring of a large pipe: kmalloc() of more than the largest cache holds."""

    kind = "kmalloc of pages"
    number = 5
    families = frozenset({"kmalloc"})

    def hold(self) -> None:
        """See Cause."""
        for fd in self._fds[1::2]:
            fcntl.fcntl(fd, _F_SETPIPE_SZ, _LARGE_PIPE)

    def release(self) -> None:
        """See Cause."""
        for fd in self._fds[1::2]:
            fcntl.fcntl(fd, _F_SETPIPE_SZ, _SMALL_PIPE)


class Pages(_Pipes):
    """What a pipe holds lies in pages."""

    kind = "pages"
    number = 29
    families = frozenset({"pages"})

    def hold(self) -> None:
        """See Cause."""
        for fd in self._fds[1::2]:
            os.write(fd, b"x")

    def release(self) -> None:
        """See Cause."""
        self.close()


class SlabCache(Cause):
    """Locks of a file: kmem_cache_alloc() and kmem_cache_free()."""

    kind = "slab caches"
    number = 13
    families = frozenset({"kmem_cache", "reclaimable_cache"})

    def __init__(self) -> None:
        """See Cause."""
        super().__init__()
        self._fds.append(os.memfd_create("kleak"))

    def hold(self) -> None:
        """See Cause."""
        for number in range(self.number):  # apart, or they are joined
            fcntl.lockf(self._fds[0], fcntl.LOCK_EX, 1, 2 * number)

    def release(self) -> None:
        """See Cause."""
        fcntl.lockf(self._fds[0], fcntl.LOCK_UN)


class KfreeRcu(Cause):
    """Options of IP sockets: others take their place, and the old ones go by kfree_rcu()."""

    kind = "kfree_rcu"
    number = 17
    families = frozenset({"kmalloc"})

    def __init__(self) -> None:
        """See Cause."""
        super().__init__()
        self._sockets = [
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(self.number)
        ]

    def hold(self) -> None:
        """See Cause."""
        for one in self._sockets:
            one.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _NO_OPERATION)

    def release(self) -> None:
        """See Cause."""
        self.hold()

    def close(self) -> None:
        """See Cause."""
        for one in self._sockets:
            one.close()


class SocketBuffers(Cause):
    """Messages that wait in a socket, and are received."""

    kind = "socket buffers"
    number = 19
    families = frozenset({"kmem_cache"})

    def __init__(self) -> None:
        """See Cause."""
        super().__init__()
        self._in, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._in.setblocking(False)
        self._out.setblocking(False)

    def hold(self) -> None:
        """See Cause."""
        for _ in range(self.number):
            self._in.send(b"x")

    def release(self) -> None:
        """See Cause."""
        for _ in range(self.number):
            self._out.recv(1)

    def close(self) -> None:
        """See Cause."""
        self._in.close()
        self._out.close()


class Areas(Cause):
    """Large maps of BPF: vmalloc() and vfree()."""

    kind = "vmalloc"
    number = 3
    families = frozenset({"vmap_area"})
    patience_s = 1.0  # a work item does it, after a grace period

    def hold(self) -> None:
        """See Cause."""
        for _ in range(self.number):
            self._fds.append(_make_map(_ARRAY, _AREA_BYTES, 1))

    def release(self) -> None:
        """See Cause."""
        self.close()


class PerCpu(Cause):
    """A map of BPF with a value on each CPU."""

    kind = "per-CPU memory"
    number = 23
    families = frozenset({"percpu"})
    patience_s = 1.0

    def hold(self) -> None:
        """See Cause."""
        self._fds.append(_make_map(_PERCPU_ARRAY, 8, self.number))

    def release(self) -> None:
        """See Cause."""
        self.close()


def _make_map(kind: int, value_bytes: int, entries: int) -> int:
    attributes = MapCreation(map_type=kind, key_size=4, value_size=value_bytes, max_entries=entries)
    return allocate(Command.MAP_CREATE, attributes)


CAUSES: tuple[type[Cause], ...] = (
    Kmalloc,
    LargeKmalloc,
    SlabCache,
    KfreeRcu,
    SocketBuffers,
    Areas,
    PerCpu,
    Pages,
)

NOT_TESTED = {
    "objects in bulk": ("kmem_cache_alloc_bulk", "kmem_cache_free_bulk"),
    "pages in bulk": ("alloc_pages_bulk",),
    "krealloc in place": ("krealloc",),
    "kmalloc_nolock": ("kmalloc_nolock", "kfree_nolock"),
    "DMA memory": ("dma_alloc", "dma_free"),
    "DMA pools": ("dma_pool_alloc", "dma_pool_free"),
}
"""Kinds that user space cannot cause, with their events."""
