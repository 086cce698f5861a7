"""/proc/kallsyms: the symbols of the kernel, of its modules and of its generated code.

    ffffffff81000000 T _stext
    ffffffffc071a010 t lx_test_leak\t[leakx]
    ffffffffc0206000 t bpf_prog_6deef7357e7b4530_sd_fw_ingress\t[bpf]

Printed by s_show() in kernel/kallsyms.c: first all symbols of the kernel itself, by address,
then those with an owner in brackets, in each owner's own order. The owner is a module, or one
of "bpf", "__builtin__ftrace" and "__builtin__kprobes" for code made at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from kleak.parsers.errors import ParseError

_ADDRESS_DIGITS = 16


class HiddenAddressesError(ParseError):
    """Every address is zero: kernel.kptr_restrict or a missing CAP_SYSLOG hides them."""

    def __init__(self) -> None:
        """Say what hides them and how to see them."""
        super().__init__(
            "all addresses are zero: read it as root with kernel.kptr_restrict at 0 or 1"
        )


@dataclass(frozen=True, slots=True)
class Symbol:
    """One line. ``kind`` is the letter of nm(1); ``module`` the owner in brackets, or None.

    While a module is loading, symbols of sections that are not kept have the kind "?"
    (elf_type() of kernel/module/kallsyms.c), until add_kallsyms() drops them.
    """

    address: int
    kind: str
    name: str
    module: str | None


@dataclass(frozen=True, slots=True)
class SymbolColumns:
    """Symbols as equally long columns, in the order of the file; cheaper than objects.

    An address stays the sixteen lower-case hex digits that the kernel printed: such keys sort
    as the numbers do, and most of them are never looked at.
    """

    addresses: list[bytes]
    kinds: list[bytes]
    names: list[bytes]


@dataclass(frozen=True, slots=True)
class Kallsyms:
    """The whole file. ``owned`` maps the name in brackets to that owner's symbols."""

    kernel: SymbolColumns
    owned: dict[str, SymbolColumns]


def parse_columns(data: bytes) -> Kallsyms:
    """Parse the bytes of /proc/kallsyms into columns.

    Raises HiddenAddressesError if every address is zero, ParseError, with the line, for
    anything that s_show() does not print, and for an empty file.
    """
    # The kernel's own lines have three words and come first, all later ones have four. So two
    # split() calls do what a loop over 200,000 lines would take ten times as long for.
    first_owned = data.find(b"\t[")
    cut = len(data) if first_owned < 0 else data.rfind(b"\n", 0, first_owned) + 1
    own, rest = data[:cut].split(), data[cut:].split()
    kernel = SymbolColumns(own[0::3], own[1::3], own[2::3])
    others = SymbolColumns(rest[0::4], rest[1::4], rest[2::4])
    owners = rest[3::4]
    if (
        data.count(b"\n") != len(kernel.names) + len(others.names)
        or len(own) % 3
        or len(rest) % 4
        or not _well_formed(kernel)
        or not _well_formed(others)
        or not all(owner.startswith(b"[") and owner.endswith(b"]") for owner in set(owners))
    ):
        raise _first_fault(data)
    if not own:
        raise ParseError("no symbol of the kernel in it")
    zero = b"0" * _ADDRESS_DIGITS
    if kernel.addresses[-1] == zero and kernel.addresses.count(zero) == len(kernel.addresses):
        raise HiddenAddressesError
    return Kallsyms(kernel, _by_owner(others, owners))


def parse_symbols(text: str) -> Iterator[Symbol]:
    """Yield every line as a Symbol, in order. Raises as parse_columns() does."""
    parsed = parse_columns(text.encode())
    yield from _symbols(parsed.kernel, None)
    for owner, columns in parsed.owned.items():
        yield from _symbols(columns, owner)


def _symbols(columns: SymbolColumns, owner: str | None) -> Iterator[Symbol]:
    for address, kind, name in zip(columns.addresses, columns.kinds, columns.names, strict=True):
        yield Symbol(int(address, 16), kind.decode(), name.decode(), owner)


def _well_formed(columns: SymbolColumns) -> bool:
    """Whether addresses are sixteen hex digits and kinds one letter, without a Python loop."""
    digits = b"".join(columns.addresses)
    return (
        set(map(len, columns.addresses)) <= {_ADDRESS_DIGITS}
        and not digits.translate(None, b"0123456789abcdef")
        and all(len(kind) == 1 and (kind.isalpha() or kind == b"?") for kind in set(columns.kinds))
    )


def _by_owner(columns: SymbolColumns, owners: list[bytes]) -> dict[str, SymbolColumns]:
    owned: dict[str, SymbolColumns] = {}
    start = 0
    for owner, run in groupby(owners):
        end = start + sum(1 for _ in run)
        part = owned.setdefault(owner[1:-1].decode(), SymbolColumns([], [], []))
        part.addresses.extend(columns.addresses[start:end])
        part.kinds.extend(columns.kinds[start:end])
        part.names.extend(columns.names[start:end])
        start = end
    return owned


def _first_fault(data: bytes) -> ParseError:
    """Find the line that broke the fast way, for the message."""
    owner_seen = False
    for number, line in enumerate(data.split(b"\n"), 1):
        words = line.split()
        owner_seen = owner_seen or len(words) == 4
        if not words and number == data.count(b"\n") + 1:
            break
        if (
            len(words) != (4 if owner_seen else 3)
            or not _well_formed(SymbolColumns(words[:1], words[1:2], []))
            or (owner_seen and not (words[3].startswith(b"[") and words[3].endswith(b"]")))
        ):
            return ParseError("not a line of /proc/kallsyms", number, line.decode(errors="replace"))
    return ParseError("the last line of /proc/kallsyms has no end")
