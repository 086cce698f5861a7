"""All witnesses, in the order in which a report tells what they say."""

from __future__ import annotations

from kleak.analysis import memory
from kleak.analysis.findings import Witness
from kleak.analysis.witnesses import (
    allocinfo,
    freed,
    growth,
    kernel_log,
    kmemleak,
    origin,
    page_holders,
    registered_names,
    size,
    slabinfo,
    survival,
    vmallocinfo,
)

LEDGER = "ledger"
BOOKS = "kernel's counters"

WITNESSES: tuple[Witness, ...] = (
    Witness("growth", LEDGER, growth.judge),
    Witness("kmemleak", "kmemleak", kmemleak.judge),
    Witness("vmallocinfo", "vmallocinfo", vmallocinfo.judge),
    Witness("page holders", BOOKS, page_holders.judge),
    Witness(kernel_log.TAGS, BOOKS, kernel_log.judge_tags),
    Witness(kernel_log.NAME, kernel_log.NAME, kernel_log.judge_caches),
    Witness(registered_names.NAME, registered_names.NAME, registered_names.judge),
    Witness(allocinfo.NAME, BOOKS, allocinfo.judge),
    Witness(slabinfo.NAME, BOOKS, slabinfo.judge),
    Witness(memory.NAME, BOOKS, memory.judge),
    Witness("origin", "stack", origin.judge),
    Witness("survival", LEDGER, survival.judge),
    Witness("freed", LEDGER, freed.judge),
    Witness("size", "size", size.judge),
)
