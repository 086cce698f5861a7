"""Source lines of a relocatable file, from its DWARF.

In a module every code section starts at address 0, and only the relocations of the debug
sections tell .text+0x10 from .init.text+0x10. So the relocations are applied here, as if each
code section had been loaded at an address of its own, far from the others; pyelftools then
reads the result like that of a linked program.
"""

from __future__ import annotations

import os.path
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.elffile import ELFFile

from kleak.files.unpack import most_unpacked
from kleak.model.session import Source

_SHF_COMPRESSED = 0x800
_SECTION_SPAN_SHIFT = 32
# Relocations of debug sections by machine: type -> struct format of the field.
_ABSOLUTE = {
    "EM_X86_64": {1: "Q", 10: "I"},  # R_X86_64_64, R_X86_64_32
    "EM_AARCH64": {257: "Q", 258: "I"},  # R_AARCH64_ABS64, R_AARCH64_ABS32
}
# What pyelftools raises when it decodes damaged DWARF: it checks little on the way.
_DAMAGE = (
    DWARFError,
    ELFError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
_KERNEL_HEADER = re.compile(r"(?:.*?/)?((?:arch/[^/]+/)?include/.+\.h)")
_INSTALLED = re.compile(r".*/lib/modules/[^/]+/kernel/(.+/)[^/]+")


@dataclass(frozen=True, slots=True)
class InlineLevel:
    """One function at an address: the innermost is where the instruction was written.

    ``function`` is None where the debug information does not name it.
    """

    function: str | None
    source: Source


@dataclass(frozen=True, slots=True)
class _Row:
    """A stretch of code that one source line made."""

    start: int
    end: int
    file: int
    line: int


class _Unit:
    """A compilation unit: its line table and its functions, each read at the first use."""

    def __init__(self, dwarf: Any, unit: Any) -> None:
        self._dwarf = dwarf
        self._unit = unit
        self.top = unit.get_top_DIE()

    @cached_property
    def _program(self) -> Any:
        return self._dwarf.line_program_for_CU(self._unit)

    @cached_property
    def rows(self) -> list[_Row]:
        """The line table by address."""
        rows = []
        previous = None
        for entry in self._program.get_entries() if self._program is not None else ():
            state = entry.state
            if state is None:
                continue
            if previous is not None and state.address > previous.address:
                rows.append(_Row(previous.address, state.address, previous.file, previous.line))
            previous = None if state.end_sequence else state
        return sorted(rows, key=lambda row: row.start)

    def row(self, address: int) -> _Row | None:
        """The row that covers an address."""
        index = bisect_right(self.rows, address, key=lambda row: row.start) - 1
        return self.rows[index] if index >= 0 and address < self.rows[index].end else None

    def path(self, index: int) -> str:
        """A file of the line table, absolute or relative to the directory of the compilation."""
        header = self._program.header
        old = header.version < 5  # files and directories count from 1, directory 0 is comp_dir
        entry = header.file_entry[index - 1 if old else index]
        name: str = entry.name.decode(errors="replace")
        directory = entry.dir_index - 1 if old else entry.dir_index
        if directory >= 0:
            name = os.path.join(header.include_directory[directory].decode(errors="replace"), name)
        name = os.path.normpath(name)
        return os.path.normpath(os.path.join(self.directory, name)) if name[:2] == ".." else name

    @property
    def directory(self) -> str:
        """Where the compiler was run."""
        return _text(self.top, "DW_AT_comp_dir") or ""

    @property
    def name(self) -> str:
        """The file that was compiled, as the compiler was told."""
        return _text(self.top, "DW_AT_name") or ""

    def inlined(self, address: int) -> list[Any]:
        """The function at an address and what is inlined into it there, outermost first."""
        for start, end, die in self._functions:
            if start <= address < end:
                return [die, *self._inlined_below(die, address)]
        return []

    def _inlined_below(self, die: Any, address: int) -> Iterator[Any]:
        for child in die.iter_children():
            if child.tag not in ("DW_TAG_inlined_subroutine", "DW_TAG_lexical_block"):
                continue
            if any(start <= address < end for start, end in self._ranges(child)):
                if child.tag == "DW_TAG_inlined_subroutine":
                    yield child
                yield from self._inlined_below(child, address)
                return

    @cached_property
    def _functions(self) -> list[tuple[int, int, Any]]:
        return [
            (start, end, die)
            for die in self.top.iter_children()
            if die.tag == "DW_TAG_subprogram"
            for start, end in self._ranges(die)
        ]

    def _ranges(self, die: Any) -> Iterator[tuple[int, int]]:
        attributes = die.attributes
        if "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
            start, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
            yield start, high.value if high.form == "DW_FORM_addr" else start + high.value
        elif "DW_AT_ranges" in attributes:
            yield from self._range_list(attributes["DW_AT_ranges"].value)

    def _range_list(self, offset: int) -> Iterator[tuple[int, int]]:
        base_attribute = self.top.attributes.get("DW_AT_low_pc")
        base = base_attribute.value if base_attribute is not None else 0
        lists = self._dwarf.range_lists()
        for entry in lists.get_range_list_at_offset(offset, self._unit):
            if hasattr(entry, "base_address"):
                base = entry.base_address
            else:
                shift = 0 if entry.is_absolute else base
                yield entry.begin_offset + shift, entry.end_offset + shift


class DebugLines:
    """Lines and inlined functions of a relocatable file, by section and offset in it.

    ``missing`` is the reason why lines are not known, or None.
    """

    def __init__(
        self,
        data: bytes,
        elf: Any,
        code: Sequence[int],
        symbols: Sequence[tuple[int, int]],
        path: Path,
    ) -> None:
        """Prepare; nothing is read yet.

        ``code`` are the indices of the code sections, ``symbols`` the (section index, value)
        of every entry of the symbol table, ``path`` the file, for short source names.
        """
        self._data = data
        self._elf = elf
        self._bases = {index: place << _SECTION_SPAN_SHIFT for place, index in enumerate(code, 1)}
        self._symbols = symbols
        self._damage: str | None = None
        self._directory = os.path.dirname(os.path.abspath(path))
        installed = _INSTALLED.fullmatch(os.path.abspath(path))
        self._tree_directory = installed[1] if installed else None

    @property
    def missing(self) -> str | None:
        """Why lines are not known, or None."""
        return self._opened if isinstance(self._opened, str) else self._damage

    def source(self, section: int, at: int) -> Source | None:
        """The line of the instruction at an offset, as a reader of the module wants it.

        That is the innermost level which is not in a header of the kernel, and the outermost
        where all of them are.
        """
        levels = self.levels(section, at)
        own = (level for level in levels if not _KERNEL_HEADER.fullmatch(level.source.file))
        return next(own, levels[-1]).source if levels else None

    def levels(self, section: int, at: int) -> tuple[InlineLevel, ...]:
        """All levels of inlining at an offset, innermost first; () where nothing is known."""
        if isinstance(self._opened, str) or section not in self._bases:
            return ()
        address = self._bases[section] + at
        try:
            for unit in self._units_at(address):
                row = unit.row(address)
                if row is not None:
                    return tuple(self._levels(unit, row, address))
        except _DAMAGE as error:
            self._damage = f"the debug information is damaged: {error!r}"
        return ()

    def _levels(self, unit: _Unit, row: _Row, address: int) -> Iterator[InlineLevel]:
        file, line = row.file, row.line
        for die in reversed(unit.inlined(address)):
            yield InlineLevel(_function_name(die), self._source(unit, file, line))
            if die.tag == "DW_TAG_inlined_subroutine":
                file = die.attributes["DW_AT_call_file"].value
                line = die.attributes["DW_AT_call_line"].value
            else:
                return
        yield InlineLevel(None, self._source(unit, file, line))

    def _source(self, unit: _Unit, file: int, line: int) -> Source:
        return Source(self._short(unit, unit.path(file)), line)

    def _short(self, unit: _Unit, path: str) -> str:
        """A path as a kernel developer writes it: from the module's or the kernel's directory."""
        for root in (self._build_directory, self._directory, unit.directory):
            if root and path.startswith(root.rstrip("/") + "/"):
                return path[len(root.rstrip("/")) + 1 :]
        if self._tree_directory is not None and os.path.isabs(path):
            _, found, rest = path.partition("/" + self._tree_directory)
            if found:
                return self._tree_directory + rest
        header = _KERNEL_HEADER.fullmatch(path)
        return header[1] if header else path

    @cached_property
    def _build_directory(self) -> str | None:
        """Where an external module was built: kbuild puts NAME.mod.c there."""
        for unit in self._units:
            if unit.name.endswith(".mod.c") and os.path.isabs(unit.name):
                return os.path.dirname(unit.name)
        return None

    def _units_at(self, address: int) -> Iterator[_Unit]:
        """The unit that .debug_aranges names, then, as clang writes none, all the others."""
        first = None
        if self._ranges is not None and self._ranges.entries:
            first = self._ranges.cu_offset_at_addr(address)
        if first is not None:
            yield self._by_offset[first]
        for offset, unit in self._by_offset.items():
            if offset != first:
                yield unit

    @property
    def _units(self) -> Iterator[_Unit]:
        return iter(self._by_offset.values())

    @cached_property
    def _by_offset(self) -> dict[int, _Unit]:
        dwarf: Any = self._opened
        return {unit.cu_offset: _Unit(dwarf, unit) for unit in dwarf.iter_CUs()}

    @cached_property
    def _ranges(self) -> Any:
        dwarf: Any = self._opened
        return dwarf.get_aranges()

    @cached_property
    def _opened(self) -> Any:
        """pyelftools' DWARFInfo of the relocated file, or the reason why there is none."""
        if self._elf.get_section_by_name(".debug_info") is None:
            return "the module was built without debug information"
        fields = _ABSOLUTE.get(self._elf["e_machine"])
        if fields is None:
            return f"the relocations of {self._elf['e_machine']} are unknown here"
        image = bytearray(self._data)
        try:
            self._unpack(image)
            # The sections of the patched file: those of compressed ones have moved.
            elf = ELFFile(BytesIO(image))
            sections = list(elf.iter_sections())
            for section in sections:
                if section["sh_type"] == "SHT_RELA" and section.name.startswith(".rela.debug_"):
                    unknown = self._relocate(image, section, sections[section["sh_info"]], fields)
                    if unknown is not None:
                        return f"relocation type {unknown} in {section.name} is unknown here"
            return ELFFile(BytesIO(image)).get_dwarf_info(relocate_dwarf_sections=False)
        except (*_DAMAGE, struct.error, zlib.error) as error:
            return f"the debug information is damaged: {error!r}"

    def _unpack(self, image: bytearray) -> None:
        """Put compressed debug sections, unpacked, behind the file.

        They are so with CONFIG_DEBUG_INFO_COMPRESSED_ZLIB. The header of such a section in
        ``image`` is changed to match: Elf64_Shdr has sh_flags at 8, sh_offset at 24 and
        sh_size at 32.
        """
        order = "<" if self._elf.little_endian else ">"
        for index, section in enumerate(self._elf.iter_sections()):
            if section.name.startswith(".debug_") and section["sh_type"] == "SHT_NOBITS":
                raise ValueError(f"section {section.name} is empty")
            if section.name.startswith(".debug_") and section["sh_flags"] & _SHF_COMPRESSED:
                if section.data_size > most_unpacked(section["sh_size"]):
                    raise ValueError(f"{section.name} unpacks to {section.data_size} bytes")
                data = section.data()
                header = self._elf["e_shoff"] + index * self._elf["e_shentsize"]
                flags = section["sh_flags"] & ~_SHF_COMPRESSED
                struct.pack_into(order + "Q", image, header + 8, flags)
                struct.pack_into(order + "QQ", image, header + 24, len(image), len(data))
                image += data

    def _relocate(
        self, image: bytearray, table: Any, target: Any, fields: dict[int, str]
    ) -> int | None:
        """Apply one table of relocations to ``image``; return the first type unknown, if any."""
        order = "<" if self._elf.little_endian else ">"
        writers = {kind: struct.Struct(order + form) for kind, form in fields.items()}
        masks = {kind: (1 << 8 * writer.size) - 1 for kind, writer in writers.items()}
        bases, symbols, start = self._bases, self._symbols, target["sh_offset"]
        for offset, info, addend in struct.iter_unpack(order + "QQq", table.data()):
            kind: int = info & 0xFFFFFFFF
            if kind not in writers:
                return kind
            section, value = symbols[info >> 32]
            address = bases.get(section, 0) + value + addend
            writers[kind].pack_into(image, start + offset, address & masks[kind])
        return None


def _text(die: Any, attribute: str) -> str | None:
    found = die.attributes.get(attribute)
    return found.value.decode(errors="replace") if found is not None else None


def _function_name(die: Any) -> str | None:
    """A function's name, which for inlined and out-of-line copies is in the abstract original."""
    for _ in range(4):
        name = _text(die, "DW_AT_name")
        if name is not None:
            return name
        for link in ("DW_AT_abstract_origin", "DW_AT_specification"):
            if link in die.attributes:
                die = die.get_DIE_from_attribute(link)
                break
        else:
            return None
    return None
