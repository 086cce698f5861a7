"""Addresses of the running kernel and of the modules loaded in it, by /proc/kallsyms.

An address gets a name only inside a range that is known to hold code of that owner. "Nearest
symbol below" alone gives the names of one module to the remains of another.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property

from kleak.frames.names import base_name
from kleak.model.session import Frame
from kleak.parsers.errors import ParseError
from kleak.parsers.kallsyms import SymbolColumns, parse_columns
from kleak.parsers.proc_modules import LoadedModule

_PAGE = 4096
_TEXT_KINDS = frozenset((b"t", b"T", b"w", b"W"))
# Owners in /proc/kallsyms that are no modules: code the kernel makes while it runs
# (bpf_get_kallsym(), ftrace_get_trampoline_kallsym(), kprobe_get_kallsym()).
_GENERATED = re.compile(r"bpf|__builtin__\w+")


@dataclass(frozen=True, slots=True)
class TextRange:
    """Code from ``start`` up to, not including, ``end``.

    A return address may equal ``end``, when a call is the last instruction: test the address
    minus 1.
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Owned:
    """One symbol of code that does not belong to the kernel image."""

    address: int
    owner: str
    name: str


class KernelTable:
    """A snapshot of /proc/kallsyms and /proc/modules, made to resolve addresses."""

    def __init__(self, kallsyms: bytes, modules: Iterable[LoadedModule] = ()) -> None:
        """Build the table from the bytes of /proc/kallsyms and the parsed /proc/modules.

        Raises HiddenAddressesError (kleak.parsers.kallsyms) if the kernel hides its addresses,
        ParseError if the text is damaged or lacks _stext or _etext.
        """
        parsed = parse_columns(kallsyms)
        self._all = parsed.kernel
        self._owned_columns = parsed.owned
        self._modules = {module.name: module for module in modules}
        kernel = parsed.kernel
        self._start = _address_of(kernel, b"_stext")
        self._end = _address_of(kernel, b"_etext")
        low, high = _key(self._start), _key(self._end)
        # The keys are sixteen hex digits, which sort like the numbers. The kernel prints its own
        # symbols in order, so sorting costs one pass; sorting whole rows would cost ten.
        if kernel.addresses != sorted(kernel.addresses):
            kernel = _select(
                kernel, sorted(range(len(kernel.names)), key=kernel.addresses.__getitem__)
            )
        first, last = bisect_left(kernel.addresses, low), bisect_left(kernel.addresses, high)
        if not _TEXT_KINDS.issuperset(kernel.kinds[first:last]):
            text = [i for i in range(first, last) if kernel.kinds[i] in _TEXT_KINDS]
            kernel, first, last = _select(kernel, text), 0, len(text)
        self._addresses = kernel.addresses[first:last]
        self._names = kernel.names[first:last]
        self._preferred: dict[int, int] = {}
        self._matched: dict[str, list[int]] = {}

    @property
    def text(self) -> TextRange:
        """The kernel's own text, _stext to _etext."""
        return TextRange(self._start, self._end)

    def resolve(self, address: int) -> Frame:
        """Name a return address; Frame(None, None, address) where nothing is known.

        The instruction before the address is looked up. Of several symbols at one address the
        first is taken, as the kernel does (get_symbol_pos() of kernel/kallsyms.c); see prefer().
        """
        at = address - 1
        if self._start <= at < self._end:
            index = bisect_right(self._addresses, _key(at)) - 1
            if index < 0:
                return Frame(None, None, address)
            index = bisect_left(self._addresses, self._addresses[index])
            name = self._names[self._preferred.get(index, index)].decode()
            return Frame(None, name, address - int(self._addresses[index], 16))
        found = self._owned_at(at)
        if found is None:
            return Frame(None, None, address)
        module = None if _GENERATED.fullmatch(found.owner) else found.owner
        return Frame(module, found.name, address - found.address)

    def prefer(self, pattern: str) -> None:
        """Of several names of one function, have resolve() give one that a glob matches."""
        for index in self._matching(pattern):
            first = bisect_left(self._addresses, self._addresses[index])
            self._preferred.setdefault(first, index)

    def has_function(self, name: str) -> bool:
        """Whether the kernel image has a text symbol of exactly this name."""
        return name.encode() in self._name_set

    def functions(self, pattern: str) -> tuple[str, ...]:
        """Text symbols of the kernel image whose source name matches a glob, by address."""
        return tuple(self._names[index].decode() for index in self._matching(pattern))

    def ranges_of_glob(self, pattern: str) -> tuple[TextRange, ...]:
        """Code of all functions of the kernel image that match a glob such as "pipe_*".

        Clones and split-off parts count as the function they come from. Ranges are sorted, and
        merged where they touch. A range runs to the next symbol, so it includes padding.
        """
        return self._ranges(self._matching(pattern))

    def ranges_of_function(self, name: str) -> tuple[TextRange, ...]:
        """Code of every function of the kernel image with this source name; see above."""
        return self.ranges_of_functions((name,))

    def ranges_of_functions(self, names: Iterable[str]) -> tuple[TextRange, ...]:
        """Code of the functions with these source names that the kernel image has; see above."""
        wanted = {base_name(name).encode() for name in names}
        return self._ranges([i for i, name in enumerate(self._source_names) if name in wanted])

    def address_of(self, name: str) -> int | None:
        """Return where a symbol of the kernel image lies, of whatever kind; None if not listed.

        Variables are listed with CONFIG_KALLSYMS_ALL only.
        """
        try:
            return int(self._all.addresses[self._all.names.index(name.encode())], 16)
        except ValueError:
            return None

    @cached_property
    def _name_set(self) -> frozenset[bytes]:
        return frozenset(self._names)

    @cached_property
    def _source_names(self) -> list[bytes]:
        """The text symbols of the kernel image, as the source names them."""
        return [
            base_name(name.decode()).encode() if b"." in name or b"_noprof" in name else name
            for name in self._names
        ]

    def _matching(self, pattern: str) -> list[int]:
        """Places of the symbols that a glob matches, as they are or as the source names them."""
        if pattern in self._matched:
            return self._matched[pattern]
        wanted = re.compile(os.fsencode(translate(pattern)))
        # What is literal rules out most, at a tenth of what matching takes.
        begin = os.fsencode(re.split(r"[*?[]", pattern, maxsplit=1)[0])
        found = self._matched[pattern] = [
            index
            for index, name in enumerate(self._names)
            if name.startswith(begin)
            and (wanted.match(name) or wanted.match(self._source_names[index]))
        ]
        return found

    def _ranges(self, indexes: list[int]) -> tuple[TextRange, ...]:
        merged: list[TextRange] = []
        for index in indexes:
            start = int(self._addresses[index], 16)
            after = bisect_right(self._addresses, self._addresses[index])
            end = int(self._addresses[after], 16) if after < len(self._addresses) else self._end
            if merged and start <= merged[-1].end:
                merged[-1] = TextRange(merged[-1].start, max(end, merged[-1].end))
            else:
                merged.append(TextRange(start, end))
        return tuple(merged)

    def module_text(self, name: str) -> TextRange | None:
        """Where the code of a loaded module lies, to the page; None if it is not loaded.

        From Linux 6.4 on the size in /proc/modules is the sum of blocks that lie apart, of which
        the code is the first: the next owner's page ends it too.
        """
        module = self._modules.get(name)
        if module is None:
            return None
        end = module.address + module.size_bytes
        first = bisect_left(self._owned_addresses, module.address)
        for symbol in self._owned[first:]:
            if symbol.address >= end:
                break
            if symbol.owner != name:
                end = symbol.address // _PAGE * _PAGE
                break
        return TextRange(module.address, end)

    # --- modules and generated code -----------------------------------------------------------

    @cached_property
    def _owned(self) -> list[_Owned]:
        """Text symbols with an owner, by address; one for each address, the first listed."""
        found: dict[int, _Owned] = {}
        for owner, columns in self._owned_columns.items():
            for key, kind, name in zip(
                columns.addresses, columns.kinds, columns.names, strict=True
            ):
                if kind in _TEXT_KINDS:
                    address = int(key, 16)
                    found.setdefault(address, _Owned(address, owner, name.decode()))
        return [found[address] for address in sorted(found)]

    @cached_property
    def _owned_addresses(self) -> list[int]:
        return [symbol.address for symbol in self._owned]

    def _owned_at(self, at: int) -> _Owned | None:
        """The symbol that holds ``at``, if the code there is surely its owner's.

        Between two symbols of one owner's block of memory it is. After the last symbol of a
        block the end is known only to the page: the next block begins on another one. The size
        in /proc/modules is of no more use than to tell the blocks of __init code from the
        others: from Linux 6.4 on it is the sum of blocks that lie apart.
        """
        index = bisect_right(self._owned_addresses, at) - 1
        if index < 0:
            return None
        symbol = self._owned[index]
        following = self._owned[index + 1] if index + 1 < len(self._owned) else None
        if following is not None and self._same_block(symbol, following):
            return symbol
        return symbol if at < (symbol.address // _PAGE + 1) * _PAGE else None

    def _same_block(self, symbol: _Owned, following: _Owned) -> bool:
        """Whether one block of memory holds the text of both."""
        module = self._modules.get(symbol.owner)
        if symbol.owner != following.owner or module is None:
            return False
        end = module.address + module.size_bytes
        inside = module.address <= symbol.address < end
        return inside == (module.address <= following.address < end)


def _select(columns: SymbolColumns, rows: list[int]) -> SymbolColumns:
    return SymbolColumns(
        [columns.addresses[row] for row in rows],
        [columns.kinds[row] for row in rows],
        [columns.names[row] for row in rows],
    )


def _key(address: int) -> bytes:
    return b"%016x" % address


def _address_of(columns: SymbolColumns, name: bytes) -> int:
    try:
        return int(columns.addresses[columns.names.index(name)], 16)
    except ValueError:
        raise ParseError(f"/proc/kallsyms has no {name.decode()}") from None
