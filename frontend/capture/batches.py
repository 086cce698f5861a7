"""Reading a hash map of the kernel again and again: some fields of each row, little memory."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any

_ROWS = 1024  # of one call; a bucket must fit, or the kernel says ENOSPC


class Batches:
    """Reads chosen fields of all rows of one map, in calls of many rows each.

    Map.rows() makes an object of each row; this makes a tuple of integers, and takes always the
    same memory.
    """

    def __init__(
        self, library: Any, table: Any, key_fields: Sequence[str], leaf_fields: Sequence[str]
    ) -> None:
        """``library`` is bcc's, ``table`` the map. Fields are integers, named in the
        order of their C declaration; an integer as key has none.
        """
        self._library = library
        self._fd = table.fd
        self._key = _layout(table.Key, key_fields)
        self._leaf = _layout(table.Leaf, leaf_fields)
        self._make_room(_ROWS)

    def _make_room(self, rows: int) -> None:
        self._rows = rows
        self._keys = ctypes.create_string_buffer(rows * self._key.size)
        self._leaves = ctypes.create_string_buffer(rows * self._leaf.size)

    def rows(self) -> Iterator[tuple[int, ...]]:
        """Return the fields of each row: those of the key, then those of the leaf.

        A row that comes or goes meanwhile may be there or not. Raises OSError if refused.
        """
        place: ctypes.c_uint32 | None = None
        keys, leaves = memoryview(self._keys), memoryview(self._leaves)
        while True:
            next_place, number = ctypes.c_uint32(), ctypes.c_uint32(self._rows)
            failed = self._library.bpf_lookup_batch(
                self._fd,
                None if place is None else ctypes.byref(place),
                ctypes.byref(next_place),
                self._keys,
                self._leaves,
                ctypes.byref(number),
            )
            reason = ctypes.get_errno() if failed else 0
            if reason == errno.ENOSPC:
                del keys, leaves
                self._make_room(2 * self._rows)
                keys, leaves = memoryview(self._keys), memoryview(self._leaves)
                continue
            if reason not in (0, errno.ENOENT):
                raise OSError(reason, os.strerror(reason))
            read = number.value
            for key, leaf in zip(
                self._key.iter_unpack(keys[: read * self._key.size]),
                self._leaf.iter_unpack(leaves[: read * self._leaf.size]),
                strict=True,
            ):
                yield key + leaf
            if reason == errno.ENOENT:
                return
            place = next_place


def _layout(kind: Any, fields: Sequence[str]) -> struct.Struct:
    """Return the layout of a ctypes type, in which only ``fields`` are unpacked."""
    layout, at = "=", 0
    for name in fields:
        field = getattr(kind, name)
        layout += f"{field.offset - at}x{'IQ'[field.size == 8]}"
        at = field.offset + field.size
    return struct.Struct(f"{layout}{ctypes.sizeof(kind) - at}x")
