"""What one snapshot holds: the parsed reports, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from kleak.model.session import PAGE_BYTES, Kernel
from kleak.parsers import kmsg
from kleak.parsers.allocinfo import Allocinfo
from kleak.parsers.buddyinfo import Buddyinfo
from kleak.parsers.kallsyms import Symbol
from kleak.parsers.kmemleak import Kmemleak
from kleak.parsers.meminfo import Meminfo
from kleak.parsers.page_owner import StackPages
from kleak.parsers.proc_modules import LoadedModule
from kleak.parsers.slabinfo import Slabinfo
from kleak.parsers.slub_traces import SlubTraces
from kleak.parsers.vmallocinfo import Vmallocinfo
from kleak.parsers.zoneinfo import Zoneinfo


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The reports of one moment. None where a report was not saved.

    ``dropped_caches`` and ``scanned`` are None where the files do not say. ``missing`` maps a
    report to why it is not there. ``damaged`` maps one to how many of its records did not parse
    and were skipped. ``slab_aliases`` maps a cache to the names that were merged with it.
    ``page_bytes`` is the machine's page size, by its manifest, else what most machines have.
    ``page_stacks`` is page_owner's, from either form. ``module_symbols`` is sorted by address.
    """

    label: str
    page_bytes: int = PAGE_BYTES
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
