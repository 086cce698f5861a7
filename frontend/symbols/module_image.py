"""A kernel module's file (.ko, also compressed): what it is called, where the kernel puts its
code, and which function and source line an offset in that code is.
"""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import subprocess
import zlib
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from kleak.errors import TargetError, UnsupportedError
from kleak.files.input_files import read_at_most, read_input
from kleak.files.private_place import private_place
from kleak.files.unpack import most_unpacked, unpack
from kleak.model.session import Source
from kleak.symbols.debug_lines import DebugLines, InlineLevel

Region = Literal["core", "init"]

_SHF_ALLOC = 0x2
_SHF_EXECINSTR = 0x4
_STT_NOTYPE = 0
_STT_FUNC = 2
_NT_GNU_BUILD_ID = 3
# struct module on 64-bit: an enum padded to 8 bytes, then a list_head, then the name.
_THIS_MODULE_NAME = 24
_MODULE_NAME_LENGTH = 56
# What is_mapping_symbol() of include/linux/module_symbol.h leaves out of the symbol table.
_NO_SYMBOL = re.compile(r"\.L|L0|\$")


_MOST_BYTES = 1 << 30
_XZ_MEMORY_BYTES = 128 << 20
_MOST_NAME_BYTES = 4096  # KSYM_NAME_LEN is 512


@dataclass(frozen=True, slots=True)
class Parameter:
    """A module parameter. ``kind`` is the C-like type of modinfo, ``description`` may be ""."""

    name: str
    kind: str
    description: str


@dataclass(frozen=True, slots=True)
class TextSection:
    """One executable section and where the kernel places it: bytes from its region's base."""

    index: int
    name: str
    region: Region
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Location:
    """What an offset in a module's text is. ``symbol`` is None if in no function.

    ``offset`` counts from the symbol, or from the region's base without one.
    """

    symbol: str | None
    offset: int
    source: Source | None


@dataclass(frozen=True, slots=True)
class ElfSymbol:
    """One entry of .symtab."""

    name: str
    kind: int
    section: int
    value: int
    size_bytes: int


class ModuleImage:
    """A module's file, opened. Line tables are read only when a line is asked for."""

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises TargetError if it is not there, no module or damaged, UnsupportedError if it needs a
        program that is not installed.
        """
        self.path = path
        self._data = _read(path)
        try:
            self._elf = ELFFile(BytesIO(self._data))
            if self._elf["e_type"] != "ET_REL" or self._elf.elfclass != 64:
                raise TargetError(f"{path}: not a 64-bit kernel module")
            self._sections: list[Any] = list(self._elf.iter_sections())
            if self._section(".gnu.linkonce.this_module") is None:
                raise TargetError(f"{path}: not a kernel module: no .gnu.linkonce.this_module")
            # All that is small is read now, so that a damaged file is refused here.
            _ = self.information, self.build_id, self.text_sections, self._functions
        except (
            ELFError,
            LookupError,
            MemoryError,
            OverflowError,
            ValueError,
            struct.error,
        ) as error:
            raise TargetError(f"{path}: not a kernel module: {error or 'damaged ELF'}") from error

    # --- what it is called --------------------------------------------------------------------

    @cached_property
    def information(self) -> dict[str, tuple[str, ...]]:
        """The tags of .modinfo, as modinfo(8) lists them, with all values of each."""
        section = self._section(".modinfo")
        tags: defaultdict[str, list[str]] = defaultdict(list)
        for entry in (_data(section) if section is not None else b"").split(b"\0"):
            tag, found, value = entry.decode(errors="replace").partition("=")
            if found:
                tags[tag].append(value)
        return {tag: tuple(values) for tag, values in tags.items()}

    @property
    def name(self) -> str:
        """The name that the kernel will give it, whatever the file is called."""
        # The kernel asks for the tag first as well (setup_load_info()).
        named = self._tag("name")
        if named is not None:
            return named
        section = self._section(".gnu.linkonce.this_module")
        raw = _data(section)[_THIS_MODULE_NAME : _THIS_MODULE_NAME + _MODULE_NAME_LENGTH]
        name: str = raw.split(b"\0")[0].decode(errors="replace")
        return name

    @property
    def vermagic(self) -> str | None:
        """Kernel release and options it was built for, or None."""
        return self._tag("vermagic")

    @property
    def version(self) -> str | None:
        """MODULE_VERSION(), or None."""
        return self._tag("version")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All module parameters, in the order of the file."""
        texts = dict(_split_tag(value) for value in self.information.get("parm", ()))
        kinds = (_split_tag(value) for value in self.information.get("parmtype", ()))
        return tuple(Parameter(name, kind, texts.get(name, "")) for name, kind in kinds)

    @cached_property
    def build_id(self) -> str | None:
        """The GNU build id in hex, as in /sys/module/NAME/notes/.note.gnu.build-id, or None."""
        section = self._section(".note.gnu.build-id")
        if section is None:
            return None
        data = _data(section)
        name_size, size, kind = struct.unpack_from(self._order + "III", data)
        start = 12 + (name_size + 3 & ~3)
        return data[start : start + size].hex() if kind == _NT_GNU_BUILD_ID else None

    # --- where the kernel puts it ----------------------------------------------------------------

    @cached_property
    def text_sections(self) -> tuple[TextSection, ...]:
        """The executable sections, placed as layout_sections() of kernel/module/main.c does it.

        All kernels begin both regions with the sections that are SHF_EXECINSTR | SHF_ALLOC, in
        the order of the file, each at its own alignment. From Linux 6.4 (commit ac3b43283923,
        "module: replace module_layout with module_memory") a region holds nothing else.
        Exact where the architecture adds no code of its own, as on x86; arm64 and others grow
        their .plt sections when they load a module, which moves any code section behind them.
        """
        unloadable = "mod_unload" in (self.vermagic or "").split()
        placed = []
        ends = {"core": 0, "init": 0}
        for index, section in enumerate(self._sections):
            wanted = _SHF_ALLOC | _SHF_EXECINSTR
            if section["sh_flags"] & wanted != wanted:
                continue
            # Without CONFIG_MODULE_UNLOAD exit code goes away with the init code
            # (module_init_layout_section()).
            discarded = section.name.startswith(".init") or (
                section.name.startswith(".exit") and not unloadable
            )
            region: Region = "init" if discarded else "core"
            alignment = section["sh_addralign"] or 1
            offset = -(-ends[region] // alignment) * alignment
            ends[region] = offset + section["sh_size"]
            placed.append(TextSection(index, section.name, region, offset, section["sh_size"]))
        return tuple(placed)

    def section_offsets(self) -> dict[str, tuple[Region, int]]:
        """Region and offset of each executable section by name, for /sys/module/M/sections."""
        return {section.name: (section.region, section.offset) for section in self.text_sections}

    def text_size(self, region: Region) -> int:
        """Bytes from the region's base to the end of its last code section."""
        ends = [s.offset + s.size_bytes for s in self.text_sections if s.region == region]
        return max(ends, default=0)

    # --- what an offset is --------------------------------------------------------------------

    def resolve(self, region: Region, offset: int) -> Location:
        """Name the return address ``offset`` bytes into the text of a region.

        The call before it is looked up (a call may be a function's last instruction); the
        offset printed is that of the return address, as the kernel prints it. ``source`` is
        the innermost line that is not in a kernel header: kmalloc() is inlined from one.
        """
        found = self._place(region, offset)
        if found is None:
            return Location(None, offset, None)
        section, at = found
        symbol = self._function(section.index, at - 1)
        source = self.lines.source(section.index, at - 1)
        if symbol is None:
            return Location(None, offset, source)
        return Location(symbol.name, at - symbol.value, source)

    def inline_levels(self, region: Region, offset: int) -> tuple[InlineLevel, ...]:
        """The functions inlined at a return address, innermost first; () without DWARF."""
        found = self._place(region, offset)
        return () if found is None else self.lines.levels(found[0].index, found[1] - 1)

    @cached_property
    def lines(self) -> DebugLines:
        """The debug information; its ``missing`` says why there is none."""
        code = tuple(section.index for section in self.text_sections)
        values = [(symbol.section, symbol.value) for symbol in self.symbols]
        return DebugLines(self._data, self._elf, code, values, self.path)

    def _place(self, region: Region, offset: int) -> tuple[TextSection, int] | None:
        """The section that holds the instruction before ``offset``, and the offset in it."""
        for section in self.text_sections:
            if section.region == region and 0 < offset - section.offset <= section.size_bytes:
                return section, offset - section.offset
        return None

    def _function(self, section: int, at: int) -> ElfSymbol | None:
        starts, symbols = self._functions.get(section, ([], []))
        label = None
        for index in range(bisect_right(starts, at) - 1, -1, -1):
            symbol = symbols[index]
            if symbol.size_bytes and at < symbol.value + symbol.size_bytes:
                return symbol
            if symbol.size_bytes:  # functions do not overlap: no earlier one reaches this far
                return label if label and label.value >= symbol.value + symbol.size_bytes else None
            label = label or symbol
        return label

    @cached_property
    def _functions(self) -> dict[int, tuple[list[int], list[ElfSymbol]]]:
        """Function symbols by section, by address; the first of several at one address wins.

        That is the one the kernel prints too (find_kallsyms_symbol()): sections_init, which is
        local and comes first, and not its alias init_module.
        """
        by_section: dict[int, dict[int, ElfSymbol]] = {s.index: {} for s in self.text_sections}
        for symbol in self.symbols:
            chosen = by_section.get(symbol.section)
            if chosen is None or symbol.kind not in (_STT_FUNC, _STT_NOTYPE) or not symbol.name:
                continue
            if _NO_SYMBOL.match(symbol.name):
                continue
            rival = chosen.get(symbol.value)
            if rival is None or (not rival.size_bytes and symbol.size_bytes):
                chosen[symbol.value] = symbol
        return {
            section: (sorted(chosen), [chosen[value] for value in sorted(chosen)])
            for section, chosen in by_section.items()
        }

    @cached_property
    def symbols(self) -> tuple[ElfSymbol, ...]:
        """All of .symtab, in its order."""
        table = self._section(".symtab")
        if table is None:
            return ()
        names = _data(self._sections[table["sh_link"]])
        # Not by pyelftools' iterator: it takes twenty times as long.
        return tuple(
            ElfSymbol(_name(names, at), info & 0xF, section, value, size)
            for at, info, _, section, value, size in struct.iter_unpack(
                self._order + "IBBHQQ", _data(table)
            )
        )

    @property
    def _order(self) -> str:
        return "<" if self._elf.little_endian else ">"

    def _section(self, name: str) -> Any:
        return next((section for section in self._sections if section.name == name), None)

    def _tag(self, tag: str) -> str | None:
        return next(iter(self.information.get(tag, ())), None)


def _split_tag(value: str) -> tuple[str, str]:
    name, _, rest = value.partition(":")
    return name, rest


def _name(names: bytes, at: int) -> str:
    """The name at an offset. Many may share one that is very long: it is refused."""
    return names[at : names.index(0, at, at + _MOST_NAME_BYTES)].decode()


def _data(section: Any) -> bytes:
    """The bytes of a section. Raises ValueError for one without: pyelftools would make them."""
    if section["sh_type"] == "SHT_NOBITS":
        raise ValueError(f"section {section.name} is empty")
    data: bytes = section.data()
    return data


def _read(path: Path) -> bytes:
    """The bytes of the ELF file, unpacked if its name says that it is compressed."""
    try:
        raw = read_input(path, _MOST_BYTES)
        most = most_unpacked(len(raw))
        if path.suffix == ".xz":
            return unpack(lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES), raw, most)
        if path.suffix == ".gz":
            return unpack(zlib.decompressobj(wbits=31), raw, most)
        if path.suffix == ".zst":
            return _unpack_zst(path, raw, most)
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror or error}") from error
    except (lzma.LZMAError, zlib.error, ValueError) as error:
        raise TargetError(f"{path}: damaged: {error}") from error
    return raw


def _unpack_zst(path: Path, raw: bytes, most_bytes: int) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        raise UnsupportedError(f"{path}: needs the zstd command: apt install zstd")
    with TemporaryFile(dir=private_place()) as packed:
        packed.write(raw)
        packed.seek(0)
        with subprocess.Popen(
            [program, "-dcq", "-M128MB"],
            stdin=packed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            content = read_at_most(process.stdout, most_bytes)
            if content is None:
                process.kill()
                raise ValueError(f"it unpacks to more than {most_bytes >> 20} MiB")
            said = process.stderr.read(4096).decode(errors="replace").strip()
    if process.returncode != 0:
        raise ValueError(said)
    return content
