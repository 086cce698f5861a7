"""Compiled programs, apart from the compiler that made them: instructions and map definitions."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from kleak.capture.engine.bpf_maps import MapDefinition

_INSTRUCTION = struct.Struct("<BBhi")  # struct bpf_insn: opcode, registers, offset, immediate
_LOAD_IMMEDIATE = 0x18  # BPF_LD | BPF_IMM | BPF_DW
_PSEUDO_MAP_FD = 1  # as source register: the immediate is a map's file descriptor


@dataclass(frozen=True, slots=True)
class ProgramImage:
    """``programs``: instructions by name, with the places of maps in ``maps`` for their numbers."""

    maps: tuple[MapDefinition, ...]
    programs: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """Return what from_bytes() reads."""
        text = json.dumps(
            {
                "maps": [asdict(definition) for definition in self.maps],
                "programs": {
                    name: b64encode(code).decode() for name, code in self.programs.items()
                },
            }
        )
        return zlib.compress(text.encode(), 1)

    @classmethod
    def from_bytes(cls, stored: bytes) -> ProgramImage:
        """Return what to_bytes() was called of."""
        image = json.loads(zlib.decompress(stored))
        return cls(
            tuple(MapDefinition(**definition) for definition in image["maps"]),
            {name: b64decode(code) for name, code in image["programs"].items()},
        )


def replace_maps(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """Return the instructions with the number of each map replaced. Raises KeyError for another."""
    replaced = bytearray(code)
    at = 0
    while at < len(code):
        opcode, registers, offset, immediate = _INSTRUCTION.unpack_from(code, at)
        if opcode == _LOAD_IMMEDIATE:
            if registers >> 4 == _PSEUDO_MAP_FD:
                _INSTRUCTION.pack_into(replaced, at, opcode, registers, offset, numbers[immediate])
            at += _INSTRUCTION.size  # its other half, no instruction
        at += _INSTRUCTION.size
    return bytes(replaced)
