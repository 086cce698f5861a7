"""Reports that count memory in pages, as the fields of /proc/meminfo that they stand for."""

from __future__ import annotations

from kleak.parsers.meminfo import Meminfo
from kleak.parsers.memory_dump import MemoryDump


def from_vmstat(values: dict[str, int], page_bytes: int) -> Meminfo:
    """The fields that /proc/vmstat has. It does not have MemTotal."""

    def pages(*names: str) -> int | None:
        present = [values[name] for name in names if name in values]
        return sum(present) * page_bytes if present else None

    reclaimable, unreclaimable = pages("nr_slab_reclaimable"), pages("nr_slab_unreclaimable")
    stacks = values.get("nr_kernel_stack")
    cached, shmem = pages("nr_file_pages"), pages("nr_shmem")
    return Meminfo(
        mem_free_bytes=pages("nr_free_pages"),
        cached_bytes=cached,
        shmem_bytes=shmem,
        anon_pages_bytes=pages("nr_anon_pages"),
        mapped_bytes=pages("nr_mapped"),
        slab_bytes=_sum(reclaimable, unreclaimable) if unreclaimable is not None else None,
        sreclaimable_bytes=reclaimable,
        sunreclaim_bytes=unreclaimable,
        kernel_stack_bytes=None if stacks is None else stacks * 1024,
        page_tables_bytes=pages("nr_page_table_pages"),
        sec_page_tables_bytes=pages("nr_sec_page_table_pages"),
    )


def from_dump(dump: MemoryDump, page_bytes: int) -> Meminfo:
    """The fields that "Mem-Info:" has. Its counts are on LRU lists, so anonymous and shared
    memory are told apart only roughly.
    """
    counts = dump.counts

    def pages(*names: str) -> int | None:
        present = [counts[name] for name in names if name in counts]
        return sum(present) * page_bytes if present else None

    ram, reserved = (
        counts.get("pages ram", counts.get("pages RAM")),
        counts.get("pages reserved", 0),
    )
    anon, shmem = pages("active_anon", "inactive_anon", "isolated_anon"), pages("shmem")
    files = pages("active_file", "inactive_file", "isolated_file")
    if anon is None and files is None:
        # Linux 2.6.27 and before: one pair of lists
        files = pages("active", "inactive")
    reclaimable, unreclaimable = pages("slab_reclaimable"), pages("slab_unreclaimable")
    slab = pages("slab")
    return Meminfo(
        mem_total_bytes=None if ram is None else (ram - reserved) * page_bytes,
        mem_free_bytes=pages("free"),
        cached_bytes=files if shmem is None or files is None else files + shmem,
        anon_pages_bytes=anon if anon is None or shmem is None else max(anon - shmem, 0),
        shmem_bytes=shmem,
        mapped_bytes=pages("mapped"),
        slab_bytes=slab if unreclaimable is None else _sum(reclaimable, unreclaimable),
        sreclaimable_bytes=reclaimable,
        sunreclaim_bytes=unreclaimable,
        page_tables_bytes=pages("pagetables"),
        sec_page_tables_bytes=pages("sec_pagetables"),
    )


def from_crash(pages: dict[str, int], page_bytes: int) -> Meminfo:
    """The fields that crash's ``kmem -i`` has."""

    def size(name: str) -> int | None:
        return None if name not in pages else pages[name] * page_bytes

    return Meminfo(
        mem_total_bytes=size("TOTAL MEM"),
        mem_free_bytes=size("FREE"),
        buffers_bytes=size("BUFFERS"),
        cached_bytes=size("CACHED"),
        slab_bytes=size("SLAB"),
    )


def _sum(*values: int | None) -> int:
    return sum(value for value in values if value is not None)
