"""All witnesses, in the order in which a report tells what they say."""

from __future__ import annotations

from kleak.analysis import memory
from kleak.analysis.findings import Judge
from kleak.analysis.witnesses import (
    allocinfo,
    freed,
    growth,
    kernel_log,
    kmemleak,
    origin,
    page_holders,
    reachability,
    registered_names,
    size,
    slabinfo,
    survival,
    vmallocinfo,
)

WITNESSES: tuple[Judge, ...] = (
    growth.judge,
    kmemleak.judge,
    reachability.judge,
    vmallocinfo.judge,
    page_holders.judge,
    kernel_log.judge_tags,
    kernel_log.judge_caches,
    registered_names.judge,
    allocinfo.judge,
    slabinfo.judge,
    memory.judge,
    origin.judge,
    survival.judge,
    freed.judge,
    size.judge,
)
