"""Maps of the programs: made from their definitions, read and written by views of ctypes."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import select
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleak.capture.engine.bpf_syscall import Batch, Command, Element, MapCreation, allocate, bpf

_PERCPU_ARRAY = 6  # enum bpf_map_type
_RINGBUF = 27
_ROWS_AT_ONCE = 32768
_FIELDS_AT_ONCE = 1024
_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")

# The names by which bcc describes C types (str2ctype of its Python package).
_TYPES: dict[str, Any] = {
    "char": ctypes.c_char,
    "unsigned char": ctypes.c_ubyte,
    "short": ctypes.c_short,
    "unsigned short": ctypes.c_ushort,
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "long": ctypes.c_long,
    "unsigned long": ctypes.c_ulong,
    "long long": ctypes.c_longlong,
    "unsigned long long": ctypes.c_ulonglong,
}


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """A map as the compiler saw it. ``key`` and ``leaf`` are its C types, in bcc's JSON."""

    name: str
    kind: int
    key_bytes: int
    leaf_bytes: int
    max_entries: int
    flags: int
    key: str
    leaf: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a map, as the kernel writes them: ``count`` keys and as many values.

    There may be a million: columns cost a hundredth of what an object for each row would.
    """

    key_type: Any
    value_type: Any
    keys: bytearray
    values: bytearray
    count: int

    def columns(self, key_fields: Sequence[str], leaf_fields: Sequence[str]) -> list[array[int]]:
        """Each field, of all rows. They are integers; a key that is one itself is named "key"."""
        return [
            *(self._column(self.keys, self.key_type, name) for name in key_fields),
            *(self._column(self.values, self.value_type, name) for name in leaf_fields),
        ]

    def value(self, row: int) -> bytes:
        """Return a copy of one value, which does not keep the others in memory."""
        size = ctypes.sizeof(self.value_type)
        return bytes(self.values[row * size : (row + 1) * size])

    def _column(self, data: bytearray, kind: Any, name: str) -> array[int]:
        row_bytes = ctypes.sizeof(kind)
        at, size = 0, row_bytes
        if issubclass(kind, ctypes.Structure):
            at, size = getattr(kind, name).offset, getattr(kind, name).size
        words = array("Q" if size == 8 else "I")
        words.frombytes(memoryview(data)[: self.count * row_bytes])
        return words[at // size :: row_bytes // size]


class Map:
    """A map in the kernel. Keys and values are of the classes Key and Leaf, made of its C types; a
    value of a per-CPU map is an array of them, one for each possible CPU.
    """

    def __init__(self, definition: MapDefinition) -> None:
        """Make the map. Raises OSError where the kernel refuses, or has no memory for it."""
        self.Key = _decode_type(json.loads(definition.key))
        self.Leaf = _decode_type(json.loads(definition.leaf))
        self._value: Any = self.Leaf
        if definition.kind == _PERCPU_ARRAY:
            if definition.leaf_bytes % 8:
                raise ValueError(f"values of {definition.name} are no multiple of 8 bytes")
            self._value = self.Leaf * possible_cpus()
        self._max_entries = definition.max_entries
        ring = definition.kind == _RINGBUF
        creation = MapCreation(
            map_type=definition.kind,
            key_size=0 if ring else definition.key_bytes,
            value_size=0 if ring else definition.leaf_bytes,
            max_entries=definition.max_entries,
            map_flags=definition.flags,
            map_name=definition.name.encode()[:15],
        )
        self.fd = allocate(Command.MAP_CREATE, creation)

    def __getitem__(self, key: Any) -> Any:
        """The value of a key. Raises KeyError if there is none."""
        leaf = self._value()
        self._element(Command.MAP_LOOKUP_ELEM, key, leaf)
        return leaf

    def __setitem__(self, key: Any, leaf: Any) -> None:
        """Set the value of a key. Raises OSError, with E2BIG where the map is full."""
        self._element(Command.MAP_UPDATE_ELEM, key, leaf)

    def __delitem__(self, key: Any) -> None:
        """Remove a key. Raises KeyError if there is none."""
        self._element(Command.MAP_DELETE_ELEM, key, None)

    def pop(self, key: Any) -> Any:
        """Remove a key; return its value. Raises KeyError if there is none."""
        leaf = self[key]
        del self[key]
        return leaf

    def clear(self) -> None:
        """Overwrite all values of an array with zeros."""
        for place in range(self._max_entries):
            self[ctypes.c_uint32(place)] = self._value()

    def rows(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values, in no order; those of one number are int.

        In batches: a call for each key takes minutes for a million.
        """
        for rows in self.batches():
            yield from zip(
                (self.Key * rows.count).from_buffer(rows.keys),
                (self._value * rows.count).from_buffer(rows.values),
                strict=True,
            )

    def fields(
        self, key_fields: Sequence[str], leaf_fields: Sequence[str]
    ) -> Iterator[tuple[int, ...]]:
        """Chosen fields of each key and value, in one tuple, without an object of either.

        For maps that are read again and again: it takes little memory. See Rows.columns().
        """
        for rows in self.batches(_FIELDS_AT_ONCE):
            yield from zip(*rows.columns(key_fields, leaf_fields), strict=True)

    def batches(self, number: int = _ROWS_AT_ONCE) -> Iterator[Rows]:
        """All rows, about ``number`` of them at a time."""
        number = min(self._max_entries, number)
        key_bytes, value_bytes = ctypes.sizeof(self.Key), ctypes.sizeof(self._value)
        here, there = ctypes.c_uint64(), ctypes.c_uint64()
        batch = Batch(map_fd=self.fd, out_batch=ctypes.addressof(there))
        ended = False
        while not ended:
            # New ones each time: what was given out points into the old ones.
            keys, values = bytearray(number * key_bytes), bytearray(number * value_bytes)
            batch.keys, batch.values = _address_of(keys), _address_of(values)
            batch.count = number
            try:
                bpf(Command.MAP_LOOKUP_BATCH, batch)
            except FileNotFoundError:
                ended = True
            except OSError as error:
                if error.errno != errno.ENOSPC or number >= self._max_entries:
                    raise
                number *= 2  # than which a bucket has more entries
                continue
            yield Rows(self.Key, self._value, keys, values, batch.count)
            here.value = there.value
            batch.in_batch = ctypes.addressof(here)

    @property
    def memory_bytes(self) -> int:
        """Return what the kernel says that the map takes. Before v6.4 that is without its hash
        table and headers: commit 90a5527d7686 ("bpf: add new map ops ->map_mem_usage").
        """
        for line in Path(f"/proc/self/fdinfo/{self.fd}").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "memlock":
                return int(value)
        return 0

    def close(self) -> None:
        """Let go of the map. May be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _element(self, command: Command, key: Any, leaf: Any) -> None:
        element = Element(
            map_fd=self.fd,
            key=ctypes.addressof(key),
            value=None if leaf is None else ctypes.addressof(leaf),
        )
        try:
            bpf(command, element)
        except FileNotFoundError:
            raise KeyError(key) from None


class Bell:
    """Waits for a ring buffer, whose records only wake: they are not read."""

    def __init__(self, ring: Map) -> None:
        """Open the buffer for reading. Raises OSError."""
        self._pages = mmap.mmap(ring.fd, mmap.PAGESIZE)
        self._produced = mmap.mmap(
            ring.fd, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=mmap.PAGESIZE
        )
        self._poll = select.epoll()
        self._poll.register(ring.fd, select.EPOLLIN)

    def wait(self, seconds: float) -> None:
        """Sleep until something is announced, for ``seconds`` at most."""
        if self._poll.poll(seconds):
            self._pages[:8] = self._produced[:8]

    def close(self) -> None:
        """Close the buffer."""
        self._poll.close()
        self._pages.close()
        self._produced.close()


def possible_cpus() -> int:
    """Return how many CPUs this kernel may have: so many values a per-CPU map has of a key."""
    last = _POSSIBLE_CPUS.read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


def _address_of(memory: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _decode_type(described: Any) -> Any:
    """Return the ctypes class of a type as bcc describes it: a name, or [name, fields, kind]."""
    if isinstance(described, str):
        return _TYPES[described]
    name, fields, _ = described
    members = []
    for field in fields:
        kind = _decode_type(field[1])
        if len(field) == 3:
            kind = kind * field[2][0]
        members.append((field[0], kind))
    return type(name, (ctypes.Structure,), {"_fields_": members})
