"""A place in kernel text as ``%pS`` prints it, and what an address column is worth.

    lx_test_vmalloc+0x4e/0x190 [leakx]
    pipe_write+0x1b0/0x5e0
    0xffffffffc071a048
    foo_open+0x31/0xf0 drivers/foo/foo.c:85                  as syzbot prints it
    kmalloc include/linux/slab.h:552 [inline]                the same, of an inlined function
    foo_open (drivers/foo/foo.c:85 (discriminator 3)) foo    as decode_stacktrace.sh prints it

Printed by symbol_string() in lib/vsprintf.c through __sprint_symbol(); a bare number is text
that kallsyms no longer knows, for example of a module that is gone. ``%pSb`` adds the build-id
after the module name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

_SYMBOLIC = re.compile(
    r"(?P<symbol>[^\s+]+)\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]+)"
    r"(?: \[(?P<module>[^\]\s]+)(?: (?P<build_id>[0-9a-f]+))?\])?"
)
_BARE = re.compile(r"0x([0-9a-f]{1,16})(?![\w+])")
_FILE = r"(?P<file>[^\s:()]+\.[A-Za-z]{1,3}):(?P<line>\d+)"
# What tools of kernel people add behind a symbol: syzbot, and scripts/decode_stacktrace.sh.
_SOURCE = re.compile(rf" {_FILE}(?P<inline> \[inline\])?")
_INLINED = re.compile(rf"(?P<symbol>[A-Za-z_][\w.$]*) {_FILE} \[inline\]")
_DECODED = re.compile(
    rf"(?P<symbol>[A-Za-z_][\w.$]*) \((?:{_FILE}|\?\?:\?)(?: \(discriminator \d+\))?\)"
    r"(?: \[?(?P<module>[\w-]+)\]?(?=$|\s))?"
)
_NAME_ALONE = re.compile(r"(?P<symbol>[A-Za-z_][\w.$]*)(?: \[(?P<module>[^\]\s]+)\])?(?=$|\s)")


class AddressKind(Enum):
    """What an address in a report is worth (ptr_to_id() and kptr_restrict in lib/vsprintf.c)."""

    REAL = "real"
    HASHED = "hashed"  # %p: one value a boot, equal for equal pointers, no order, no arithmetic
    ZERO = "zero"  # kptr_restrict is 2, or the reader lacks CAP_SYSLOG
    UNREADY = "unready"  # "(____ptrval____)": read before the hash key existed


@dataclass(frozen=True, slots=True)
class CodeLocation:
    """One place in kernel text. Either ``symbol`` and what follows it is known, or ``address``.

    ``offset`` and ``symbol_size`` are bytes. ``module`` is None for the kernel's own text.
    ``file`` and ``line`` are there where a tool added them.
    """

    symbol: str | None
    offset: int | None
    symbol_size: int | None
    module: str | None
    address: int | None = None
    build_id: str | None = None
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        """The text that the kernel prints for it, without the build-id."""
        if self.symbol is None:
            return "?" if self.address is None else f"0x{self.address:x}"
        offset = "" if self.offset is None else f"+0x{self.offset:x}"
        of_size = "" if self.symbol_size is None else f"/0x{self.symbol_size:x}"
        module = "" if self.module is None else f" [{self.module}]"
        source = "" if self.file is None else f" {self.file}:{self.line}"
        return f"{self.symbol}{offset}{of_size}{module}{source}"


def match_code_location(text: str, start: int = 0) -> tuple[CodeLocation, int] | None:
    """The location that begins at ``start`` of ``text`` and where it ends, or None."""
    match = _SYMBOLIC.match(text, start)
    if match is not None:
        source = _SOURCE.match(text, match.end())
        location = CodeLocation(
            symbol=match["symbol"],
            offset=int(match["offset"], 16),
            symbol_size=int(match["size"], 16),
            module=match["module"],
            build_id=match["build_id"],
            file=None if source is None else source["file"],
            line=None if source is None else int(source["line"]),
        )
        return location, match.end() if source is None else source.end()
    match = _INLINED.match(text, start) or _DECODED.match(text, start)
    if match is not None:
        return _sourced(match), match.end()
    match = _BARE.match(text, start)
    if match is not None:
        return CodeLocation(None, None, None, None, address=int(match[1], 16)), match.end()
    return None


def match_name_alone(text: str, start: int = 0) -> tuple[CodeLocation, int] | None:
    """A symbol without offset, as kernels before %pS and shortened reports have it, or None.

    Any word is one: only a caller that knows which other words may stand there can ask.
    """
    match = _NAME_ALONE.match(text, start)
    if match is None:
        return None
    return CodeLocation(match["symbol"], None, None, match["module"]), match.end()


def _sourced(match: re.Match[str]) -> CodeLocation:
    told = match.groupdict()
    line = told["line"]
    return CodeLocation(
        told["symbol"], None, None, told.get("module"),
        file=told["file"], line=None if line is None else int(line),
    )  # fmt: skip


def parse_code_location(text: str) -> CodeLocation | None:
    """The location that ``text`` is, or None where it is something else."""
    found = match_code_location(text)
    return found[0] if found is not None and found[1] == len(text) else None


def classify_address(text: str) -> tuple[int | None, AddressKind] | None:
    """What one printed pointer (with or without 0x) is: its value if any, and its kind.

    A 64-bit kernel hashes to 32 bits, and its own addresses have the top bit set, on 4-level
    and 5-level paging alike; so the upper half decides. For 8 digits (32-bit kernels) nothing
    does, and the value is given as real. None where ``text`` is no pointer.
    """
    digits = text.removeprefix("0x")
    if digits in ("(____ptrval____)", "(ptrval)"):
        return None, AddressKind.UNREADY
    if not re.fullmatch(r"[0-9a-fA-F]{1,16}", digits):
        return None
    value = int(digits, 16)
    if value == 0:
        return None, AddressKind.ZERO
    if len(digits) == 16 and value >> 32 == 0:
        return value, AddressKind.HASHED
    return value, AddressKind.REAL
