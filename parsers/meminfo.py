"""/proc/meminfo, printed by meminfo_proc_show() in fs/proc/meminfo.c.

    MemTotal:       24684092 kB
    SUnreclaim:        26656 kB
    HugePages_Total:       0

Every "kB" is 1024 bytes. Which fields there are depends on the version and on its options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.errors import ParseError

_FIELD = re.compile(r"(?P<name>[A-Za-z][\w()]*):(?P<value>.*)")
_KILOBYTES = re.compile(r"(\d+) kB")
_COUNT = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Meminfo:
    """One report. None where this kernel does not print the field.

    ``other_bytes`` and ``other_counts`` hold fields that this parser does not know, under the
    kernel's names.
    """

    mem_total_bytes: int | None = None
    mem_free_bytes: int | None = None
    mem_available_bytes: int | None = None
    buffers_bytes: int | None = None
    cached_bytes: int | None = None
    swap_cached_bytes: int | None = None
    active_bytes: int | None = None
    inactive_bytes: int | None = None
    unevictable_bytes: int | None = None
    mlocked_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    zswap_bytes: int | None = None
    zswapped_bytes: int | None = None
    dirty_bytes: int | None = None
    writeback_bytes: int | None = None
    anon_pages_bytes: int | None = None
    mapped_bytes: int | None = None
    shmem_bytes: int | None = None
    kreclaimable_bytes: int | None = None
    slab_bytes: int | None = None
    sreclaimable_bytes: int | None = None
    sunreclaim_bytes: int | None = None
    kernel_stack_bytes: int | None = None
    page_tables_bytes: int | None = None
    sec_page_tables_bytes: int | None = None
    committed_as_bytes: int | None = None
    vmalloc_total_bytes: int | None = None
    vmalloc_used_bytes: int | None = None
    vmalloc_chunk_bytes: int | None = None
    percpu_bytes: int | None = None
    cma_total_bytes: int | None = None
    cma_free_bytes: int | None = None
    balloon_bytes: int | None = None
    unaccepted_bytes: int | None = None
    hugetlb_bytes: int | None = None
    huge_pages_total: int | None = None
    huge_pages_free: int | None = None
    huge_page_size_bytes: int | None = None
    other_bytes: dict[str, int] = field(default_factory=dict)
    other_counts: dict[str, int] = field(default_factory=dict)


_ATTRIBUTES = {
    "MemTotal": "mem_total_bytes",
    "MemFree": "mem_free_bytes",
    "MemAvailable": "mem_available_bytes",
    "Buffers": "buffers_bytes",
    "Cached": "cached_bytes",
    "SwapCached": "swap_cached_bytes",
    "Active": "active_bytes",
    "Inactive": "inactive_bytes",
    "Unevictable": "unevictable_bytes",
    "Mlocked": "mlocked_bytes",
    "SwapTotal": "swap_total_bytes",
    "SwapFree": "swap_free_bytes",
    "Zswap": "zswap_bytes",
    "Zswapped": "zswapped_bytes",
    "Dirty": "dirty_bytes",
    "Writeback": "writeback_bytes",
    "AnonPages": "anon_pages_bytes",
    "Mapped": "mapped_bytes",
    "Shmem": "shmem_bytes",
    "KReclaimable": "kreclaimable_bytes",
    "Slab": "slab_bytes",
    "SReclaimable": "sreclaimable_bytes",
    "SUnreclaim": "sunreclaim_bytes",
    "KernelStack": "kernel_stack_bytes",
    "PageTables": "page_tables_bytes",
    "SecPageTables": "sec_page_tables_bytes",
    "Committed_AS": "committed_as_bytes",
    "VmallocTotal": "vmalloc_total_bytes",
    "VmallocUsed": "vmalloc_used_bytes",
    "VmallocChunk": "vmalloc_chunk_bytes",
    "Percpu": "percpu_bytes",
    "CmaTotal": "cma_total_bytes",
    "CmaFree": "cma_free_bytes",
    "Balloon": "balloon_bytes",
    "Unaccepted": "unaccepted_bytes",
    "Hugetlb": "hugetlb_bytes",
    "HugePages_Total": "huge_pages_total",
    "HugePages_Free": "huge_pages_free",
    "Hugepagesize": "huge_page_size_bytes",
}
_KERNEL_NAMES = {attribute: name for name, attribute in _ATTRIBUTES.items()}


def kernel_name(attribute: str) -> str:
    """The kernel's name for an attribute of Meminfo. Raises KeyError where there is none."""
    return _KERNEL_NAMES[attribute]


def field_names() -> tuple[str, ...]:
    """The kernel's names of all fields that Meminfo has an attribute for."""
    return tuple(_ATTRIBUTES)


def parse(source: Source, *, errors: OnError = "raise") -> Meminfo:
    """Parse one report.

    Raises ParseError at a damaged line and where a second report begins. With
    errors="collect" damaged lines are skipped and only the first report is read; ``stream``
    tells what was skipped.
    """
    found: Meminfo | None = None
    damage = Damage(errors)
    for report in stream(source, errors=errors):
        if found is not None:
            damage.report("a second /proc/meminfo begins; read it with stream()")
            break
        found = report
    if found is None:
        raise ParseError("no /proc/meminfo in this text")
    return found


def stream(
    source: Source, *, errors: OnError = "raise", problems: list[ParseError] | None = None
) -> Iterator[Meminfo]:
    """Yield one Meminfo for each report in ``source``; a field seen again begins the next.

    Raises ParseError at a damaged line, or appends it to ``problems`` with errors="collect".
    """
    damage = Damage(errors, problems)
    values: dict[str, int] = {}
    other_bytes: dict[str, int] = {}
    other_counts: dict[str, int] = {}
    for number, line in enumerate(iterate_lines(source), 1):
        bare = undress(line).strip()
        if not bare:
            continue
        match = _FIELD.fullmatch(bare)
        if match is None:
            damage.report("not a line of /proc/meminfo", number, line)
            continue
        name, value = match["name"], match["value"].strip()
        attribute = _ATTRIBUTES.get(name)
        in_bytes = _KILOBYTES.fullmatch(value)
        if name == "MemTotal" or attribute in values:
            if values or other_bytes or other_counts:
                yield _build(values, other_bytes, other_counts)
            values, other_bytes, other_counts = {}, {}, {}
        if attribute is None:
            if in_bytes:
                other_bytes[name] = int(in_bytes[1]) * 1024
            elif _COUNT.fullmatch(value):
                other_counts[name] = int(value)
        elif attribute.endswith("_bytes") and in_bytes:
            values[attribute] = int(in_bytes[1]) * 1024
        elif not attribute.endswith("_bytes") and _COUNT.fullmatch(value):
            values[attribute] = int(value)
        else:
            damage.report(f"{name} does not parse", number, line)
    if values or other_bytes or other_counts:
        yield _build(values, other_bytes, other_counts)


def _build(
    values: dict[str, int], other_bytes: dict[str, int], other_counts: dict[str, int]
) -> Meminfo:
    present = {item.name: values.get(item.name) for item in fields(Meminfo)[:-2]}
    return Meminfo(**present, other_bytes=other_bytes, other_counts=other_counts)
