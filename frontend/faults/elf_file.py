"""An ELF relocatable file whose bytes can be changed and added to, and else stay as they are.

Nothing that is there moves: what is new, and what grew, goes behind the end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from kleak.errors import TargetError

SHT_SYMTAB = 2
SHT_RELA = 4
SHF_WRITE = 0x1
SHF_ALLOC = 0x2
SHF_EXECINSTR = 0x4
SHF_INFO_LINK = 0x40
STT_OBJECT = 1
STT_FUNC = 2
SYMBOL_BYTES = 24
RELOCATION_BYTES = 24

_HEADER_BYTES = 64
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_SHN_LORESERVE = 0xFF00
_STB_GLOBAL = 1
_SIGNED = b"~Module signature appended~\n"
# struct module_signature of include/linux/module_signature.h; its last word is the signature's
# length, big-endian.
_SIGNATURE_HEAD = struct.Struct(">8xI")


@dataclass(frozen=True, slots=True)
class Section:
    """A section header; see elf(5)."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int

    def pack(self) -> bytes:
        """The header as it is in the file."""
        return _SECTION.pack(
            self.name,
            self.kind,
            self.flags,
            self.address,
            self.offset,
            self.size,
            self.link,
            self.info,
            self.alignment,
            self.entry_size,
        )


@dataclass(frozen=True, slots=True)
class Symbol:
    """An entry of the symbol table. ``section`` 0: it is undefined."""

    name: str
    section: int
    value: int
    size: int
    kind: int


@dataclass(frozen=True, slots=True)
class Relocation:
    """An entry of a relocation section. ``at`` is its place in the file."""

    at: int
    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


def without_signature(data: bytes) -> bytes:
    """Return a module's file without the signature at its end, if it has one."""
    if not data.endswith(_SIGNED):
        return data
    end = len(data) - len(_SIGNED)
    (length,) = _SIGNATURE_HEAD.unpack_from(data, end - _SIGNATURE_HEAD.size)
    return data[: end - _SIGNATURE_HEAD.size - length]


class ElfFile:
    """A little-endian 64-bit ELF relocatable file in memory."""

    def __init__(self, data: bytes) -> None:
        """Read the headers. Raises TargetError for what is no such file or damaged."""
        self.data = bytearray(data)
        try:
            if data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", data, 16)[0] != 1:
                raise TargetError("not a little-endian 64-bit module")
            (self.machine,) = struct.unpack_from("<H", data, 18)
            (start,) = struct.unpack_from("<Q", data, 40)
            size, count, names = struct.unpack_from("<HHH", data, 58)
            if size != _SECTION.size or not 0 < count < _SHN_LORESERVE or names >= count:
                raise TargetError("its section headers are not as those of a module")
            self.sections = [
                Section(*_SECTION.unpack_from(data, start + number * size))
                for number in range(count)
            ]
            for section in self.sections:
                if section.kind != 8 and section.offset + section.size > len(data):  # SHT_NOBITS
                    raise TargetError("a section is behind its end")
            self._names = names
            self.section_names = [self._string(names, one.name) for one in self.sections]
            tables = [i for i, one in enumerate(self.sections) if one.kind == SHT_SYMTAB]
            if len(tables) != 1:
                raise TargetError("it has no symbol table, or several")
            self.symbol_table = tables[0]
            table = self.sections[self.symbol_table]
            self.symbols = [
                Symbol(self._string(table.link, name), section, value, size, info & 0xF)
                for name, info, _, section, value, size in _SYMBOL.iter_unpack(
                    self.contents(self.symbol_table)[: table.size // SYMBOL_BYTES * SYMBOL_BYTES]
                )
            ]
        except (struct.error, IndexError, ValueError) as error:
            raise TargetError(f"damaged: {error}") from error

    def contents(self, section: int) -> bytes:
        """The bytes of a section of the file as it was read."""
        header = self.sections[section]
        return bytes(self.data[header.offset : header.offset + header.size])

    def relocations(self, section: int) -> list[Relocation]:
        """Those in the section of relocations ``section``."""
        header = self.sections[section]
        return [
            Relocation(
                header.offset + at, header.info, offset, info & 0xFFFFFFFF, info >> 32, addend
            )
            for at, (offset, info, addend) in zip(
                range(0, header.size, RELOCATION_BYTES),
                _RELOCATION.iter_unpack(
                    self.contents(section)[: header.size // RELOCATION_BYTES * RELOCATION_BYTES]
                ),
                strict=False,
            )
        ]

    def turn(self, relocation: Relocation, symbol: int) -> None:
        """Make a relocation refer to another symbol."""
        packed = _RELOCATION.pack(
            relocation.offset, symbol << 32 | relocation.kind, relocation.addend
        )
        self.data[relocation.at : relocation.at + RELOCATION_BYTES] = packed

    def add(self, additions: Additions) -> bytes:
        """Return the file with ``additions``; this one is as before, but for what was turned."""
        data = bytearray(self.data)
        sections = list(self.sections)

        def append(section: Section, contents: bytes) -> Section:
            data.extend(bytes(-len(data) % max(section.alignment, 1)))
            placed = replace(section, offset=len(data), size=len(contents))
            data.extend(contents)
            return placed

        def grow(number: int, more: bytes) -> int:
            """Make a section longer by ``more``; return where that begins in it."""
            before = bytes(data[sections[number].offset :][: sections[number].size])
            sections[number] = append(sections[number], before + more)
            return len(before)

        names_at = grow(self._names, b"".join(one.encode() + b"\0" for one in additions.names))
        for name, header, contents in zip(
            additions.names, additions.headers, additions.contents, strict=True
        ):
            sections.append(append(replace(header, name=names_at), contents))
            names_at += len(name) + 1
        strings = self.sections[self.symbol_table].link
        at = grow(strings, b"".join(one.name.encode() + b"\0" for one in additions.symbols))
        packed = b""
        for symbol in additions.symbols:
            info = _STB_GLOBAL << 4 | symbol.kind
            packed += _SYMBOL.pack(at, info, 0, symbol.section, symbol.value, symbol.size)
            at += len(symbol.name) + 1
        grow(self.symbol_table, packed)
        data.extend(bytes(-len(data) % 8))
        struct.pack_into("<Q", data, 40, len(data))
        struct.pack_into("<H", data, 60, len(sections))
        for section in sections:
            data += section.pack()
        return bytes(data)

    def _string(self, table: int, at: int) -> str:
        header = self.sections[table]
        start, end = header.offset + at, header.offset + header.size
        return self.data[start : self.data.index(0, start, end)].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Additions:
    """What to add: sections (``headers`` without name, offset and size), and global symbols."""

    names: tuple[str, ...]
    headers: tuple[Section, ...]
    contents: tuple[bytes, ...]
    symbols: tuple[Symbol, ...]


def pack_relocation(offset: int, kind: int, symbol: int, addend: int) -> bytes:
    """A relocation as it is in the file."""
    return _RELOCATION.pack(offset, symbol << 32 | kind, addend)
