"""BTF, the type information a kernel carries about itself (/sys/kernel/btf/vmlinux).

The format is that of Documentation/bpf/btf.rst; pahole writes it when the kernel is built. One
pass over the type section notes where each record begins. Questions are answered from the raw
words afterwards: a name is found by its offset in the string section, so only the records that
are asked for are ever decoded.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TypeVar

from kleak.parsers.errors import ParseError

_MAGIC = 0xEB9F
_HEADER = "HBBIIIII"
_VERSION = 1


class _Kind(IntEnum):
    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Words of 4 bytes that follow the three of struct btf_type: once, and for each of its vlen.
_TAIL = {_Kind.INT: 1, _Kind.ARRAY: 3, _Kind.VAR: 1, _Kind.DECL_TAG: 1}
_TAIL_EACH = {
    _Kind.STRUCT: 3,
    _Kind.UNION: 3,
    _Kind.ENUM: 2,
    _Kind.FUNC_PROTO: 2,
    _Kind.DATASEC: 3,
    _Kind.ENUM64: 3,
}
_WORDS = [3 + _TAIL.get(kind, 0) for kind in _Kind]
_WORDS_EACH = [_TAIL_EACH.get(kind, 0) for kind in _Kind]

_COMPOSITE = (_Kind.STRUCT, _Kind.UNION)
_SIZED = (_Kind.INT, _Kind.STRUCT, _Kind.UNION, _Kind.ENUM, _Kind.FLOAT, _Kind.ENUM64)
_TRANSPARENT = (_Kind.TYPEDEF, _Kind.VOLATILE, _Kind.CONST, _Kind.RESTRICT, _Kind.TYPE_TAG)


_T = TypeVar("_T")


class AmbiguousTypeError(ValueError):
    """One name, several definitions that disagree on what was asked."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member lies in its struct or union.

    ``offset`` is in bytes from the start of the outermost type asked for; for a bit-field it is
    that of the byte holding its first bit, with ``bit_offset`` counted from the start of the
    type and ``bit_size`` its width. ``bit_size`` is 0 for every other member. ``size_bytes`` is
    that of the declared type. For an array ``element_size`` and ``count`` are those of its
    outer dimension (count 0 for a flexible array member); for all else they are None.
    """

    offset: int
    size_bytes: int
    bit_offset: int
    bit_size: int
    element_size: int | None = None
    count: int | None = None


class Btf:
    """Answers questions about the types of one kernel.

    Every question returns None where the kernel has no such thing, so that callers test for a
    member or an enumerator and never for a version. AmbiguousTypeError is raised where several
    types of the name give different answers.
    """

    def __init__(self, data: bytes) -> None:
        """Scan ``data``, the bytes of the whole file or of an ELF's .BTF section.

        Raises ParseError for anything that is no BTF, is cut short or has a kind unknown here.
        """
        self._strings, types = _sections(data)
        self._types = types
        self._words = array("I")
        self._words.frombytes(types)
        if _swapped(data):
            self._words.byteswap()
            self._types = self._words.tobytes()
        self._starts = self._scan()

    def struct_size(self, name: str) -> int | None:
        """Size in bytes of a struct or union."""
        return self._one(name, {self._words[start + 2] for start in self._named(name, _COMPOSITE)})

    def member(self, name: str, path: str) -> Member | None:
        """A member of struct or union ``name``, found inside anonymous structs and unions too.

        ``path`` may name a member of a member: "core_layout.base".
        """
        found = set()
        for start in self._named(name, _COMPOSITE):
            member = self._walk(start, path.split("."))
            if member is not None:
                found.add(member)
        return self._one(f"{name}.{path}", found)

    def member_offset(self, name: str, path: str) -> int | None:
        """Offset in bytes of a member; see member()."""
        member = self.member(name, path)
        return None if member is None else member.offset

    def path_at(self, name: str, offset: int) -> str | None:
        """Path of the member at a byte of struct or union ``name``: "list.next", "slots[3]".

        None where there is no such type, or none of its members is there. Of a union, the first.
        """
        for start in self._named(name, _COMPOSITE):
            path = self._path_at(start, offset, 0)
            if path is not None:
                return path
        return None

    def enumerator(self, name: str) -> int | None:
        """Value of an enumerator, whichever enum defines it."""
        return self._one(name, set(self._enumerator_values(name)))

    def has_function(self, name: str) -> bool:
        """Whether the kernel has a FUNC of that name (static functions are among them)."""
        return bool(self._named(name, (_Kind.FUNC,)))

    def function_id(self, name: str) -> int | None:
        """Number of the type of a FUNC, by which the kernel knows it (BPF's attach_btf_id)."""
        return self._id(name, _Kind.FUNC)

    def typedef_id(self, name: str) -> int | None:
        """Number of the type of a TYPEDEF; the kernel has one for each tracepoint."""
        return self._id(name, _Kind.TYPEDEF)

    def function_parameters(self, name: str) -> tuple[str, ...] | None:
        """Parameter names of a function, in order; an unnamed one is "" (so is a final ...)."""
        found = set()
        for start in self._named(name, (_Kind.FUNC,)):
            prototype = self._start(self._words[start + 2])
            if self._kind(prototype) != _Kind.FUNC_PROTO:
                raise ParseError(f"BTF: function {name} has no prototype")
            found.add(
                tuple(
                    self._string(self._words[prototype + 3 + 2 * index])
                    for index in range(self._vlen(prototype))
                )
            )
        return self._one(name, found)

    def function_result_bytes(self, name: str) -> int | None:
        """Size in bytes of what a function returns; 0 for void."""
        found = set()
        for start in self._named(name, (_Kind.FUNC,)):
            prototype = self._start(self._words[start + 2])
            if self._kind(prototype) != _Kind.FUNC_PROTO:
                raise ParseError(f"BTF: function {name} has no prototype")
            found.add(self._size(self._words[prototype + 2]))
        return self._one(name, found)

    # --- records ------------------------------------------------------------------------------

    def _scan(self) -> list[int]:
        """Note the index of each record's first word; a type's id is its place in the list."""
        words, end = self._words, len(self._words)
        sizes, sizes_each = _WORDS, _WORDS_EACH
        starts = [0]  # id 0 is void and has no record
        append = starts.append
        position = kind = 0
        try:
            while position < end:
                append(position)
                info = words[position + 1]
                kind = info >> 24 & 0x1F
                position += sizes[kind] + sizes_each[kind] * (info & 0xFFFF)
        except IndexError:
            if kind >= len(sizes):
                raise ParseError(f"BTF: type {len(starts) - 1} is of unknown kind {kind}") from None
            raise ParseError(f"BTF: type {len(starts) - 1} is cut short") from None
        if position != end:
            raise ParseError(f"BTF: type {len(starts) - 1} is cut short")
        return starts

    def _start(self, type_id: int) -> int:
        if not 0 < type_id < len(self._starts):
            raise ParseError(f"BTF: reference to type {type_id} of {len(self._starts) - 1}")
        return self._starts[type_id]

    def _kind(self, start: int) -> int:
        return self._words[start + 1] >> 24 & 0x1F

    def _vlen(self, start: int) -> int:
        return self._words[start + 1] & 0xFFFF

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise ParseError(f"BTF: string offset {offset} is out of range")
        return self._strings[offset:end].decode()

    def _string_offset(self, name: str) -> int | None:
        """Where ``name`` is in the string section; strings are stored once (btf__dedup())."""
        found = self._strings.find(b"\0" + name.encode() + b"\0") if name else -1
        return None if found < 0 else found + 1

    def _places(self, offset: int) -> Iterator[tuple[int, int]]:
        """Yield (record start, index) of every word after a record's head equal to ``offset``."""
        pattern = struct.pack("=I", offset)
        at = self._types.find(pattern)
        while at >= 0:
            if at % 4 == 0:
                index = at // 4
                start = self._starts[bisect_right(self._starts, index, lo=1) - 1]
                if index >= start + 3:
                    yield start, index
            at = self._types.find(pattern, at + 1)

    def _named(self, name: str, kinds: tuple[_Kind, ...]) -> list[int]:
        """Starts of the records of that name."""
        return [self._starts[type_id] for type_id in self._ids(name, kinds)]

    def _ids(self, name: str, kinds: tuple[_Kind, ...]) -> list[int]:
        """Numbers of the types of that name. An index of all names takes longer to make than to
        search for each of those that are asked for.
        """
        offset = self._string_offset(name)
        if offset is None:
            return []
        pattern = struct.pack("=I", offset)
        found = []
        at = self._names.find(pattern)
        while at >= 0:
            if at % 4 == 0:
                found.append(at // 4)
            at = self._names.find(pattern, at + 1)
        return [type_id for type_id in found if self._kind(self._starts[type_id]) in kinds]

    @cached_property
    def _names(self) -> bytes:
        """String offsets of the names of all types, four bytes each, by their numbers."""
        return array("I", [0, *map(self._words.__getitem__, self._starts[1:])]).tobytes()

    def _id(self, name: str, kind: _Kind) -> int | None:
        """Number of the first type of that name and kind."""
        return next(iter(self._ids(name, (kind,))), None)

    @staticmethod
    def _one(name: str, answers: set[_T]) -> _T | None:
        if len(answers) > 1:
            raise AmbiguousTypeError(f"BTF: {name} has {len(answers)} different definitions")
        return next(iter(answers), None)

    # --- types --------------------------------------------------------------------------------

    def _resolve(self, type_id: int) -> int | None:
        """The record behind typedefs and qualifiers, or None for void."""
        for _ in range(len(self._starts)):
            if type_id == 0:
                return None
            start = self._start(type_id)
            if self._kind(start) not in _TRANSPARENT:
                return start
            type_id = self._words[start + 2]
        raise ParseError(f"BTF: type {type_id} refers to itself")

    def _size(self, type_id: int) -> int:
        """Size in bytes, 0 where the type has none (void, function, forward declaration)."""
        count = 1
        for _ in range(len(self._starts)):
            start = self._resolve(type_id)
            if start is None:
                return 0
            kind = self._kind(start)
            if kind in _SIZED:
                return count * self._words[start + 2]
            if kind == _Kind.PTR:
                return count * self._pointer_size()
            if kind != _Kind.ARRAY:
                return 0
            type_id = self._words[start + 3]
            count *= self._words[start + 5]
        raise ParseError(f"BTF: array type {type_id} contains itself")

    def _pointer_size(self) -> int:
        """Size of unsigned long, which is that of a pointer in every Linux ABI."""
        for name in ("long unsigned int", "unsigned long"):
            for start in self._named(name, (_Kind.INT,)):
                return self._words[start + 2]
        return 8

    def _members(self, start: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (name offset, type id, bit offset, bit size) of a struct's or union's members."""
        words = self._words
        # With kind_flag set, bits 24-31 of the offset word are a bit-field's width. Without it
        # a bit-field's width is in its INT type (before Linux 5.0, commit 9d5f9f701b18).
        packed = words[start + 1] >> 31
        for at in range(start + 3, start + 3 + 3 * self._vlen(start), 3):
            where = words[at + 2]
            if packed:
                yield words[at], words[at + 1], where & 0xFFFFFF, where >> 24
            else:
                yield words[at], words[at + 1], where, self._int_bits(words[at + 1])

    def _int_bits(self, type_id: int) -> int:
        """Width of an INT narrower than its storage, else 0."""
        start = self._resolve(type_id)
        if start is None or self._kind(start) != _Kind.INT:
            return 0
        bits = self._words[start + 3] & 0xFF
        return bits if bits < 8 * self._words[start + 2] else 0

    def _walk(self, start: int, path: list[str]) -> Member | None:
        """Follow a dotted path from one struct or union."""
        base = 0
        for depth, name in enumerate(path):
            offset = self._string_offset(name)
            found = None if offset is None else self._find(start, offset)
            if found is None:
                return None
            type_id, bit_offset, bit_size = found
            base += bit_offset
            if depth == len(path) - 1:
                return self._describe(type_id, base, bit_size)
            inner = self._resolve(type_id)
            if inner is None or self._kind(inner) not in _COMPOSITE:
                return None
            start = inner
        return None

    def _find(self, start: int, name: int, depth: int = 0) -> tuple[int, int, int] | None:
        """(type id, bit offset, bit size) of a member, anonymous members searched in place."""
        if depth > 32:
            raise ParseError("BTF: anonymous members nest without end")
        for member, type_id, bit_offset, bit_size in self._members(start):
            if member == name:
                return type_id, bit_offset, bit_size
            if member == 0:
                inner = self._resolve(type_id)
                if inner is None or self._kind(inner) not in _COMPOSITE:
                    continue
                found = self._find(inner, name, depth + 1)
                if found is not None:
                    return found[0], bit_offset + found[1], found[2]
        return None

    def _path_at(self, start: int, offset: int, depth: int) -> str | None:
        """The members that lead from one struct or union to a byte of it, joined by dots."""
        if depth > 32:
            raise ParseError("BTF: members nest without end")
        for name, type_id, bit_offset, _ in self._members(start):
            inside = offset - bit_offset // 8
            if not 0 <= inside < self._size(type_id):
                continue
            path = self._string(name) if name else ""
            inner = self._resolve(type_id)
            if inner is not None and self._kind(inner) == _Kind.ARRAY:
                element = self._words[inner + 3]
                index, inside = divmod(inside, max(1, self._size(element)))
                path += f"[{index}]"
                inner = self._resolve(element)
            if inner is None or self._kind(inner) not in _COMPOSITE:
                return path
            rest = self._path_at(inner, inside, depth + 1)
            return ".".join(part for part in (path, rest) if part) or None
        return None

    def _describe(self, type_id: int, bit_offset: int, bit_size: int) -> Member:
        start = self._resolve(type_id)
        element_size = count = None
        if start is not None and self._kind(start) == _Kind.ARRAY:
            element_size = self._size(self._words[start + 3])
            count = self._words[start + 5]
        return Member(
            offset=bit_offset // 8,
            size_bytes=self._size(type_id),
            bit_offset=bit_offset,
            bit_size=bit_size,
            element_size=element_size,
            count=count,
        )

    def _enumerator_values(self, name: str) -> Iterator[int]:
        words = self._words
        offset = self._string_offset(name)
        if offset is None:
            return
        for start, index in self._places(offset):
            kind, inside = self._kind(start), index - start - 3
            signed = words[start + 1] >> 31
            if kind == _Kind.ENUM and inside % 2 == 0:
                value = words[index + 1]
                yield value - (1 << 32) if signed and value >> 31 else value
            elif kind == _Kind.ENUM64 and inside % 3 == 0:
                value = words[index + 1] | words[index + 2] << 32
                yield value - (1 << 64) if signed and value >> 63 else value


def _swapped(data: bytes) -> bool:
    """Whether the file is of the other byte order, told by its magic number."""
    return data[:2] != struct.pack("=H", _MAGIC)


def _sections(data: bytes) -> tuple[bytes, bytes]:
    """Cut out the string and the type section, after checking the header."""
    order = "=" if not _swapped(data) else (">" if sys.byteorder == "little" else "<")
    size = struct.calcsize("=" + _HEADER)
    if len(data) < size:
        raise ParseError(f"BTF: {len(data)} bytes hold no header")
    magic, version, _, length, type_at, type_len, string_at, string_len = struct.unpack_from(
        order + _HEADER, data
    )
    if magic != _MAGIC:
        raise ParseError("BTF: wrong magic number")
    if version != _VERSION:
        raise ParseError(f"BTF: version {version}, known is {_VERSION}")
    types = data[length + type_at : length + type_at + type_len]
    strings = data[length + string_at : length + string_at + string_len]
    if length < size or len(types) != type_len or len(strings) != string_len or type_len % 4:
        raise ParseError(f"BTF: {len(data)} bytes are fewer than the header says")
    if not strings.startswith(b"\0") or not strings.endswith(b"\0"):
        raise ParseError("BTF: the string section is damaged")
    return strings, types
