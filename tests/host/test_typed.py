"""Where the verifier takes a typed program, it reads of a slab cache what the plain one reads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.hooks import Attachment
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.scope import NamedScope

PIPES = 211
EVENT = "kmem_cache_alloc"
FAMILIES = {"kmem_cache", "reclaimable_cache"}  # files, and their inodes


def objects(*, typed: bool) -> set[tuple[str, int, int]]:
    """Family, size and size asked for of what create_pipe_files() has made from slab caches."""
    table = read_kernel_table()
    plan = make_plan(read_btf(), table, modules=False)
    if not typed:
        plan.events = [replace(event, ways=event.ways[-1:]) for event in plan.events]
    symbols = NamedScope(("create_pipe_files",)).find(table).symbols
    with Tracer(plan, find_headers(), symbols=symbols) as tracer:
        way = tracer.attachments[EVENT]
        if typed and way is not Attachment.TYPED_TRACEPOINT:
            pytest.skip("this kernel's verifier refuses the typed program")
        assert typed or way is Attachment.RAW_TRACEPOINT
        tracer.count_allocations(True, cycle=1)
        make = f"import os\nfor _ in range({PIPES}):\n for end in os.pipe(): os.close(end)"
        subprocess.run([sys.executable, "-c", make], check=True)
        tracer.count_allocations(False)
        rows = [row for row in tracer.totals() if row.family in FAMILIES]
    assert max(row.allocated for row in rows) >= PIPES
    return {
        (row.family, row.allocated_bytes // row.allocated, row.allocated_requested // row.allocated)
        for row in rows
        if row.allocated >= PIPES
    }


def test_sizes_and_families_are_those_of_the_plain_program() -> None:
    found = objects(typed=True)
    assert {family for family, _, _ in found} == FAMILIES
    assert found == objects(typed=False)
