"""Compiled programs, apart from the compiler that made them: instructions and map definitions."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from kleak.capture.bpf_maps import MapDefinition

_INSTRUCTION = struct.Struct("<BBhi")  # struct bpf_insn: opcode, registers, offset, immediate
_LOAD_IMMEDIATE = 0x18  # BPF_LD | BPF_IMM | BPF_DW
_PSEUDO_MAP_FD = 1  # as source register: the immediate is a map's file descriptor
_DIGEST_BYTES = 32


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
        packed = zlib.compress(text.encode(), 1)
        return hashlib.sha256(packed).digest() + packed

    @classmethod
    def from_bytes(cls, stored: bytes) -> ProgramImage:
        """Raises ValueError for anything but what to_bytes() returned, whole."""
        digest, packed = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if hashlib.sha256(packed).digest() != digest:
            raise ValueError("a damaged image")
        image = json.loads(zlib.decompress(packed))
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
