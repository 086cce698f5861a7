"""The machine code of a stub: it counts its calls down and fails the one that reaches zero.

All other calls jump on, so that no frame of a stub is ever on a stack. A stub is entered by a
direct call or jump only, so it needs no landing pad. It has no data of its own but one word.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from kleak.faults.known_failures import Returns
from kleak.faults.prototypes import Failing

EM_X86_64 = 62
EM_AARCH64 = 183

_ENOMEM = -12

R_X86_64_PC32 = 2
R_X86_64_PLT32 = 4
R_AARCH64_ABS64 = 257
R_AARCH64_JUMP26 = 282
R_AARCH64_CALL26 = 283


@dataclass(frozen=True, slots=True)
class Patch:
    """A relocation of a stub: ``offset`` from its start. ``counter`` or else the function."""

    offset: int
    kind: int
    counter: bool
    addend: int


@dataclass(frozen=True, slots=True)
class Stub:
    """Code that may lie anywhere in text, aligned to 16; calls go to ``entry`` bytes into it."""

    code: bytes
    entry: int
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """What differs: how a stub looks, and which relocations are calls.

    ``is_call(code, offset, kind, addend)`` tells of a relocation at ``offset`` in ``code``.
    """

    stub: Callable[[Failing], Stub]
    is_call: Callable[[bytes, int, int, int], bool]


def _x86_stub(failing: Failing) -> Stub:
    # Room for what call depth tracking may put before a function that is called: the kernel warns
    # of other bytes there (patch_dest() of arch/x86/kernel/callthunks.c, Linux 6.2 and later).
    code = bytearray(b"\x90" * 16)
    entry = len(code)
    jump_on = []
    if failing.forbids is not None:
        # test $mask, %edi %esi %edx %ecx %r8d %r9d; jne on
        registers = (b"\xf7\xc7", b"\xf7\xc6", b"\xf7\xc2", b"\xf7\xc1")
        extended = (b"\x41\xf7\xc0", b"\x41\xf7\xc1")
        code += (registers + extended)[failing.forbids.argument]
        code += struct.pack("<I", failing.forbids.mask) + b"\x75\0"
        jump_on.append(len(code))
    code += b"\xf0\xff\x0d\0\0\0\0"  # lock decl counter(%rip)
    counter = Patch(len(code) - 4, R_X86_64_PC32, True, -4)
    code += b"\x74\x05"  # je over the jump
    for at in jump_on:
        code[at - 1] = len(code) - at
    code += b"\xe9\0\0\0\0"
    target = Patch(len(code) - 4, R_X86_64_PLT32, False, -4)
    if failing.returns in (Returns.NULL, Returns.ZERO):
        code += b"\x31\xc0"  # xor %eax, %eax
    else:
        code += b"\x48\xc7\xc0" + struct.pack("<i", _ENOMEM)  # mov $-12, %rax
    code += b"\xc3\xcc"  # ret; int3
    return Stub(bytes(code), entry, (counter, target))


def _x86_is_call(code: bytes, offset: int, kind: int, addend: int) -> bool:
    if kind not in (R_X86_64_PC32, R_X86_64_PLT32) or addend != -4 or offset < 1:
        return False
    if code[offset - 1] in (0xE8, 0xE9):
        return True
    # A conditional tail call: 0f 80 to 0f 8f.
    return offset > 1 and code[offset - 2] == 0x0F and code[offset - 1] & 0xF0 == 0x80


def _arm64_stub(failing: Failing) -> Stub:
    words: list[int] = []
    forbidden = None
    if failing.forbids is not None:
        words.append(0)  # tbnz, filled in below
        forbidden = failing.forbids
    # x16 and x17 are free between caller and callee (AAPCS64), x9 holds no argument.
    literal_at = len(words)
    words += [
        0,  # ldr x16, literal
        0x885F7E11,  # 1: ldxr w17, [x16]
        0x51000631,  # sub w17, w17, #1
        0x88097E11,  # stxr w9, w17, [x16]
        0x35FFFFA9,  # cbnz w9, 1b
        0x34000051,  # cbz w17, 2f
    ]
    on = len(words)
    words.append(0x14000000)  # b function
    # 2: x0 = 0, or -12 as movn
    failed = failing.returns in (Returns.NULL, Returns.ZERO)
    words += [0xD2800000 if failed else 0x92800000 | (~_ENOMEM & 0xFFFF) << 5, 0xD65F03C0]
    if forbidden is not None:
        bit = forbidden.mask.bit_length() - 1
        words[0] = 0x37000000 | bit << 19 | on << 5 | forbidden.argument
    if len(words) % 2:
        words.append(0xD503201F)  # nop: the literal is aligned to 8
    words[literal_at] = 0x58000010 | (len(words) - literal_at) << 5
    code = struct.pack(f"<{len(words)}I", *words) + bytes(8)
    return Stub(
        code,
        0,
        (
            Patch(4 * len(words), R_AARCH64_ABS64, True, 0),
            Patch(4 * on, R_AARCH64_JUMP26, False, 0),
        ),
    )


def _arm64_is_call(code: bytes, offset: int, kind: int, addend: int) -> bool:
    return kind in (R_AARCH64_CALL26, R_AARCH64_JUMP26) and addend == 0 and not offset % 4


ARCHITECTURES = {
    EM_X86_64: Architecture(_x86_stub, _x86_is_call),
    EM_AARCH64: Architecture(_arm64_stub, _arm64_is_call),
}
"""By the machine of the ELF header."""
