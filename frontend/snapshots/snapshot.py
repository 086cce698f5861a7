"""What one snapshot holds: the parsed reports, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from kleak.model.session import PAGE_BYTES, Kernel
from kleak.parsers import kmsg
from kleak.parsers.allocinfo import Allocinfo
from kleak.parsers.buddyinfo import Buddyinfo
from kleak.parsers.cgroups import Cgroups, MemoryStat
from kleak.parsers.counted_stacks import CountedStacks
from kleak.parsers.crash_kmem import CrashRegions
from kleak.parsers.free import Free
from kleak.parsers.kallsyms import Symbol
from kleak.parsers.kmemleak import Kmemleak
from kleak.parsers.meminfo import Meminfo
from kleak.parsers.memory_dump import MemoryDump
from kleak.parsers.page_owner import StackPages
from kleak.parsers.pagetypeinfo import Pagetypeinfo
from kleak.parsers.proc_modules import LoadedModule
from kleak.parsers.processes import Processes
from kleak.parsers.ref_tracker import TrackedReference
from kleak.parsers.slab_tables import CacheUsage
from kleak.parsers.slabinfo import Slabinfo
from kleak.parsers.slub_traces import SlubTraces
from kleak.parsers.smem import Smem
from kleak.parsers.vmallocinfo import Vmallocinfo
from kleak.parsers.zoneinfo import Zoneinfo


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The reports of one moment. None where a report was not saved.

    ``dropped_caches`` and ``scanned`` are None where the files do not say. ``missing`` maps a
    report to why it is not there. ``damaged`` maps one to how many of its records did not parse
    and were skipped. ``slab_aliases`` maps a cache to the names that were merged with it.
    ``page_stacks`` is page_owner's, from either form. ``module_symbols`` is sorted by address.

    ``losses`` are sentences on what could not be used, with file and line. ``meminfo_from`` says
    what the figures of ``meminfo`` are from, where that is another report. ``slab_table`` maps a
    tool to its table of caches. ``known_page_bytes`` is None where no report tells.
    """

    label: str
    time: str | None = None
    uptime_seconds: float | None = None
    kernel: Kernel | None = None
    boot_id: str | None = None
    dropped_caches: bool | None = None
    scanned: bool | None = None
    missing: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    meminfo: Meminfo | None = None
    slabinfo: Slabinfo | None = None
    slab_aliases: dict[str, tuple[str, ...]] | None = None
    vmallocinfo: Vmallocinfo | None = None
    kmemleak: Kmemleak | None = None
    allocinfo: Allocinfo | None = None
    page_stacks: tuple[StackPages, ...] | None = None
    alloc_traces: dict[str, SlubTraces] | None = None
    buddyinfo: Buddyinfo | None = None
    zoneinfo: Zoneinfo | None = None
    modules: tuple[LoadedModule, ...] | None = None
    module_symbols: tuple[Symbol, ...] = ()
    log: tuple[kmsg.Witness, ...] | None = None
    losses: tuple[str, ...] = ()
    known_page_bytes: int | None = None
    meminfo_from: str | None = None
    dump: MemoryDump | None = None
    slab_tables: dict[str, tuple[CacheUsage, ...]] = field(default_factory=dict)
    counted_stacks: dict[str, CountedStacks] = field(default_factory=dict)
    references: tuple[TrackedReference, ...] = ()
    free: Free | None = None
    smem: Smem | None = None
    processes: Processes | None = None
    crash_regions: CrashRegions | None = None
    cgroups: Cgroups | None = None
    memory_stat: MemoryStat | None = None
    pagetypeinfo: Pagetypeinfo | None = None

    @property
    def page_bytes(self) -> int:
        """The size of a page: as told or inferred, else that of most machines."""
        return self.known_page_bytes or PAGE_BYTES
