"""All witnesses, in the order in which a report tells what they say."""

from __future__ import annotations

from kleak.analysis import (
    freed,
    growth,
    kmemleak,
    origin,
    page_holders,
    size,
    survival,
    vmallocinfo,
)
from kleak.analysis.findings import Witness

LEDGER = "ledger"

WITNESSES: tuple[Witness, ...] = (
    Witness("growth", LEDGER, growth.judge),
    Witness("kmemleak", "kmemleak", kmemleak.judge),
    Witness("vmallocinfo", "vmallocinfo", vmallocinfo.judge),
    Witness("kpageflags", "kpageflags", page_holders.judge),
    Witness("origin", "stack", origin.judge),
    Witness("survival", LEDGER, survival.judge),
    Witness("freed", LEDGER, freed.judge),
    Witness("size", "size", size.judge),
)
