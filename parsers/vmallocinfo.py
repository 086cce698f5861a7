"""/proc/vmallocinfo, printed by vmalloc_info_show() (s_show() before 6.12) in mm/vmalloc.c.

    0xff81959e801a9000-0xff81959e801ac000   12288 do_it+0x4e/0x190 [leakx] pages=2 vmalloc N0=2
    0xff5a284e003a5000-0xff5a284e003a7000    8192 esb_probe+0x87/0x234 phys=0xfebf8000 ioremap
    0x00000000f893ea91-0x000000006fb5c64a   20480 unpurged vm_area
    0xd0806000-0xd080f000   36864 foo_open+0x10/0x50 [foo] pages=8 vmalloc        32 bits

Rows are sorted by address up to 6.6 and grouped by an internal node from 6.12 on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.code_location import (
    AddressKind,
    CodeLocation,
    classify_address,
    match_code_location,
    match_name_alone,
)
from kleak.parsers.errors import ParseError

_POINTER = r"0x(?:[0-9a-f]{8,16}|\(_*ptrval_*\))"
_ROW = re.compile(rf"(?P<start>{_POINTER})-(?P<end>{_POINTER})\s+(?P<size>\d+)(?P<rest>(?:\s.*)?)")
_NODE = re.compile(r"N(\d+)=(\d+)")
_FLAG_WORDS = frozenset(("ioremap", "sparse", "vmalloc", "vmap", "user", "dma-coherent", "vpages"))
_KIND_FLAGS = ("vmalloc", "vmap", "ioremap", "sparse", "dma-coherent")
_HASH_MAX = 0xFFFF_FFFF  # ptr_to_id() keeps 32 bits
_KNOWN_DETAILS_MAX = 1 << 13


@dataclass(frozen=True, slots=True)
class Details:
    """What stands behind the size of a row; equal for many rows.

    ``kind`` is "vmalloc", "vmap", "ioremap", "sparse", "dma-coherent", "vm_map_ram",
    "unpurged" (already freed, address space waits for the purge) or "unflagged".
    ``pages`` is without the guard page. ``physical_address`` is that of an ioremap.
    ``pages_by_node`` has (node, pages) pairs. ``other`` are words this parser does not know.
    """

    kind: str
    caller: CodeLocation | None = None
    pages: int | None = None
    physical_address: int | None = None
    flags: frozenset[str] = frozenset()
    pages_by_node: tuple[tuple[int, int], ...] = ()
    other: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Region:
    """One row. ``size_bytes`` includes the guard page, as the kernel's vm_struct.size does.

    ``start`` and ``end`` are what was printed (see ``address_kind``: a hashed one serves for
    comparison within one boot only), None where the kernel printed no value.
    """

    start: int | None
    end: int | None
    size_bytes: int
    address_kind: AddressKind
    details: Details

    @property
    def kind(self) -> str:
        """The kind of mapping, see Details."""
        return self.details.kind

    @property
    def caller(self) -> CodeLocation | None:
        """Who called vmalloc(), vmap() or ioremap(); None where the kernel recorded nobody."""
        return self.details.caller

    @property
    def pages(self) -> int | None:
        """Pages that the region holds, guard page not included."""
        return self.details.pages

    @property
    def is_allocation(self) -> bool:
        """Whether the region is VM_ALLOC: memory of its own, not a mapping of something else."""
        return "vmalloc" in self.details.flags


@dataclass(frozen=True, slots=True)
class Vmallocinfo:
    """A whole report, in the kernel's order."""

    regions: tuple[Region, ...]
    problems: tuple[ParseError, ...] = ()

    @property
    def address_kinds(self) -> frozenset[AddressKind]:
        """The kinds of address that occur; more than one says that reports were mixed."""
        return frozenset(region.address_kind for region in self.regions)


def parse(source: Source, *, errors: OnError = "raise") -> Vmallocinfo:
    """Parse a report. With errors="collect" a damaged row is skipped and kept in ``problems``."""
    problems: list[ParseError] = []
    regions = tuple(stream(source, errors=errors, problems=problems))
    return Vmallocinfo(regions, tuple(problems))


def stream(
    source: Source, *, errors: OnError = "raise", problems: list[ParseError] | None = None
) -> Iterator[Region]:
    """Yield the rows one at a time, in memory that does not grow with the report.

    Raises ParseError at a damaged row, or appends it to ``problems`` with errors="collect".
    """
    damage = Damage(errors, problems)
    known: dict[str, Details] = {}
    real, hashed, zero = AddressKind.REAL, AddressKind.HASHED, AddressKind.ZERO
    terminated = False
    for number, line in enumerate(iterate_lines(source), 1):
        try:
            span, size_text, rest = line.split(None, 2)
            start_text, end_text = span.split("-")
            start, end, size_bytes = int(start_text, 16), int(end_text, 16), int(size_text)
            details = known[rest]
        except (ValueError, KeyError):
            pass
        else:
            if start > _HASH_MAX:
                if end - start == size_bytes:
                    yield Region(start, end, size_bytes, real, details)
                    continue
            elif len(start_text) == len(end_text) == 18 and end <= _HASH_MAX and size_bytes > 0:
                if start and end:
                    yield Region(start, end, size_bytes, hashed, details)
                    continue
                if start == end:
                    yield Region(None, None, size_bytes, zero, details)
                    continue
        if len(known) >= _KNOWN_DETAILS_MAX:
            known.clear()
        try:
            region = _parse_row(line, known)
        except ParseError as error:
            damage.report(error.message, number, line)
            continue
        if region is None:
            continue
        # the kernel ends every row with a newline: without one, what stands last was cut
        if terminated and not line.endswith("\n") and _looks_cut(region.details):
            damage.report("row is cut off", number, line)
            continue
        terminated = terminated or line.endswith("\n")
        yield region


def _parse_row(line: str, known: dict[str, Details]) -> Region | None:
    """One row the long way; None for a blank line. Remembers its details in ``known``."""
    bare = undress(line).strip()
    if not bare:
        return None
    match = _ROW.fullmatch(bare)
    if match is None:
        raise ParseError("not a vmallocinfo row")
    size_bytes = int(match["size"])
    details = _parse_details(match["rest"].strip())
    pieces = line.split(None, 2)
    # only what the fast path would cut out of a clean line is a key for it
    if len(pieces) == 3 and bare.startswith(pieces[0]) and not _looks_cut(details):
        known[pieces[2]] = details
    first, last = classify_address(match["start"]), classify_address(match["end"])
    if first is None or last is None:
        raise ParseError("address does not parse")
    (start, kind), (end, end_kind) = first, last
    if kind is not end_kind:
        raise ParseError("the two addresses are not of one kind")
    if kind is AddressKind.REAL and start is not None and end is not None:
        # a 32-bit kernel prints eight digits, hashed or not: only the difference can tell
        if end - start != size_bytes and len(match["start"]) > 10:
            raise ParseError("size is not the difference of the addresses")
        kind = AddressKind.REAL if end - start == size_bytes else AddressKind.HASHED
    if size_bytes <= 0:
        raise ParseError("size is not positive")
    return Region(start, end, size_bytes, kind, details)


def _parse_details(text: str) -> Details:
    if text == "unpurged vm_area":
        return Details("unpurged")
    if text == "vm_map_ram":
        return Details("vm_map_ram")
    caller: CodeLocation | None = None
    found = match_code_location(text)
    if found is None and text.partition(" ")[0] not in _FLAG_WORDS:
        found = match_name_alone(text)
    if found is not None:
        caller, used = found
        text = text[used:]
    pages: int | None = None
    physical_address: int | None = None
    flags: list[str] = []
    by_node: list[tuple[int, int]] = []
    other: list[str] = []
    for word in text.split():
        if word in _FLAG_WORDS:
            flags.append(word)
        elif word.startswith("pages="):
            pages = _number(word, 10)
        elif word.startswith("phys="):
            physical_address = _number(word, 16)
        elif (match := _NODE.fullmatch(word)) is not None:
            by_node.append((int(match[1]), int(match[2])))
        else:
            other.append(word)
    return Details(
        kind=next((flag for flag in _KIND_FLAGS if flag in flags), "unflagged"),
        caller=caller,
        pages=pages,
        physical_address=physical_address,
        flags=frozenset(flags),
        pages_by_node=tuple(by_node),
        other=tuple(other),
    )


def _number(word: str, base: int) -> int:
    name, _, digits = word.partition("=")
    try:
        return int(digits, base)
    except ValueError:
        raise ParseError(f"{name}= is not a number") from None


def _looks_cut(details: Details) -> bool:
    """Whether these details can be the head of longer ones."""
    if details.kind == "unflagged" or details.other:
        return True
    on_nodes = sum(pages for _, pages in details.pages_by_node)
    return bool(details.pages_by_node) and details.pages is not None and on_nodes != details.pages
