"""Pages of the page cache are its own, by whatever functions it asks for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kleak.capture.engine.events import plan_here
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.hooks import Plan
from kleak.capture.engine.records import SymbolScope
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table

EVENT = "mm_filemap_add_to_page_cache"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def pages_of_the_cache(plan: Plan, load: Callable[[], None]) -> int:
    """Outstanding pages that functions of the page cache asked for while ``load`` ran."""
    table = read_kernel_table()
    scope = SymbolScope((table.text,), everything=True)
    with Tracer(plan, find_headers(None), symbols=scope) as tracer:
        tracer.count_allocations(True)
        load()
        tracer.count_allocations(False)
        asked = {
            key
            for key, stack in tracer.stacks().items()
            if any("filemap" in (table.resolve(at - 1).symbol or "") for at in stack[:8])
        }
        totals = [total for total in tracer.totals() if total.family == "pages"]
        return sum(total.outstanding for total in totals if total.stack in asked)


def read_inodes() -> None:
    """Of the pages that this fills, a file system's own may not be moved: these are booked."""
    DROP_CACHES.write_text("3\n")
    for directory, _, names in os.walk("/usr/share"):
        for name in names:
            os.lstat(os.path.join(directory, name))


def test_pages_that_the_cache_took_are_not_outstanding() -> None:
    plan = plan_here(read_kernel_table(), modules=False)
    without = replace(plan, events=[event for event in plan.events if event.name != EVENT])
    assert pages_of_the_cache(plan, read_inodes) == 0
    assert pages_of_the_cache(without, read_inodes) >= 100  # the load does fill it
