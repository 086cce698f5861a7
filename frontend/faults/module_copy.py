"""A copy of a module in which single calls can be made to fail.

Each call of a function that is known to fail goes to a stub of its own in the copy (stubs.py). All
other bytes of the module are as they were, and so is each section's number and place: the kernel's
tables of the module (ORC, mcount, returns, calls, CFI) describe the same code as before.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kleak.errors import TargetError, UnsupportedError
from kleak.faults.elf_file import (
    RELOCATION_BYTES,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_INFO_LINK,
    SHF_WRITE,
    SHT_RELA,
    STT_FUNC,
    STT_OBJECT,
    Additions,
    ElfFile,
    Relocation,
    Section,
    Symbol,
    pack_relocation,
    without_signature,
)
from kleak.faults.prototypes import Failing
from kleak.faults.stubs import ARCHITECTURES

COUNTERS = ".data.kleak"
STUBS = ".text.kleak"
_COUNTER = struct.Struct("<i")
_SHT_PROGBITS = 1
_STUB_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an undefined function. ``return_offset`` is that behind it, in its section."""

    function: str
    section: int
    section_name: str
    return_offset: int
    relocation: Relocation


def find_calls(elf: ElfFile) -> tuple[Call, ...]:
    """Return the direct calls of functions that the module does not have, init code first.

    Raises UnsupportedError for a machine that there are no stubs for.
    """
    architecture = ARCHITECTURES.get(elf.machine)
    if architecture is None:
        raise UnsupportedError("calls can be failed in modules for x86-64 and arm64 only")
    calls = []
    for number, header in enumerate(elf.sections):
        if header.kind != SHT_RELA or header.link != elf.symbol_table:
            continue
        if header.info >= len(elf.sections):
            raise TargetError("a section of relocations is damaged")
        wanted = SHF_EXECINSTR | SHF_ALLOC
        target = elf.sections[header.info]
        name = elf.section_names[header.info]
        # What the kernel puts in place of other code is no code of its own.
        if target.flags & wanted != wanted or name.startswith(".altinstr"):
            continue
        code = elf.contents(header.info)
        for one in elf.relocations(number):
            if one.symbol >= len(elf.symbols) or one.offset + 4 > len(code):
                raise TargetError("a relocation is damaged")
            symbol = elf.symbols[one.symbol]
            if symbol.section or not symbol.name:
                continue
            if architecture.is_call(code, one.offset, one.kind, one.addend):
                # arm64 relocates the whole instruction, x86 the last 4 bytes of it.
                calls.append(Call(symbol.name, header.info, name, one.offset + 4, one))
    calls.sort(
        key=lambda call: (call.section_name != ".init.text", call.section, call.return_offset)
    )
    return tuple(calls)


class ModuleCopy:
    """The copy, in memory: its counters at rest, and one that is armed."""

    def __init__(self, elf: ElfFile, calls: Sequence[Call], how: Sequence[Failing]) -> None:
        """Give each of ``calls`` a stub, which fails it as ``how`` says at the same place."""
        stub_of = ARCHITECTURES[elf.machine].stub
        first_section, first_symbol = len(elf.sections), len(elf.symbols)
        code, relocations = bytearray(), bytearray()
        symbols = [Symbol("kleak_calls", first_section, 0, 4 * len(calls), STT_OBJECT)]
        for number, (call, failing) in enumerate(zip(calls, how, strict=True)):
            stub = stub_of(failing)
            code += b"\xcc" * (-len(code) % _STUB_ALIGNMENT)
            for patch in stub.patches:
                relocations += pack_relocation(
                    len(code) + patch.offset,
                    patch.kind,
                    first_symbol if patch.counter else call.relocation.symbol,
                    patch.addend + (4 * number if patch.counter else 0),
                )
            elf.turn(call.relocation, first_symbol + len(symbols))
            symbols.append(
                Symbol(
                    f"kleak_fail_{number + 1}",
                    first_section + 1,
                    len(code) + stub.entry,
                    len(stub.code) - stub.entry,
                    STT_FUNC,
                )
            )
            code += stub.code
        counters = bytes(4 * len(calls))
        flags = (SHF_ALLOC | SHF_WRITE, SHF_ALLOC | SHF_EXECINSTR, SHF_INFO_LINK)
        headers = (
            Section(0, _SHT_PROGBITS, flags[0], 0, 0, 0, 0, 0, 8, 0),
            Section(0, _SHT_PROGBITS, flags[1], 0, 0, 0, 0, 0, _STUB_ALIGNMENT, 0),
            Section(
                0, SHT_RELA, flags[2], 0, 0, 0,
                elf.symbol_table, first_section + 1, 8, RELOCATION_BYTES,
            ),
        )  # fmt: skip
        self._data = bytearray(
            elf.add(
                Additions(
                    (COUNTERS, STUBS, f".rela{STUBS}"),
                    headers,
                    (counters, bytes(code), bytes(relocations)),
                    tuple(symbols),
                )
            )
        )
        self.calls = len(calls)
        self._counters_at = ElfFile(bytes(self._data)).sections[first_section].offset

    def write(self, path: Path, armed: tuple[int, int] | None = None) -> None:
        """Write it. ``armed`` (call, counted from 0, and which of its times) will fail, once."""
        data = bytearray(self._data)
        if armed is not None:
            number, nth = armed
            _COUNTER.pack_into(data, self._counters_at + 4 * number, nth)
        path.write_bytes(data)


def made(counters: bytes) -> list[int]:
    """How often each call was made, by the counters of a copy that was not armed."""
    return [-value & 0xFFFFFFFF for (value,) in _COUNTER.iter_unpack(counters)]


def read_module(data: bytes) -> ElfFile:
    """Return a module's file without its signature, which a changed one cannot have."""
    return ElfFile(without_signature(data))
