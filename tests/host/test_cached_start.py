"""Programs that were compiled by an earlier start count as those of the first one do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers, kernel_cache
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.scope import NamedScope
from tests.support.build_modules import TOP

MADE, KEPT = 1009, 41


def test_second_start_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEAK_KERNELS", str(kernel_cache()))  # the headers are there
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = read_kernel_table()
    scope = NamedScope(("do_signalfd4",)).find(table)
    plan = make_plan(read_btf(), table, modules=False)
    seen = []
    for compiled_before in (False, True):
        with Tracer(plan, find_headers(), symbols=scope.symbols) as tracer:
            assert tracer.compiled_before == compiled_before
            tracer.count_allocations(True, cycle=1)
            subprocess.run(
                [sys.executable, TOP / "tests/host/signalfd_load.py", "1", str(MADE), str(KEPT)],
                cwd=tmp_path,
                check=True,
            )
            os.kill(int((tmp_path / "keeper").read_text()), signal.SIGKILL)
            tracer.count_allocations(False)
            # Contexts; the slab allocator's own vectors are kmalloc memory too.
            contexts = max(row.allocated for row in tracer.totals() if row.family == "kmalloc")
            seen.append((contexts, tracer.attachments))
    assert seen[0] == seen[1]
    assert seen[0][0] == MADE + KEPT


def test_another_scope_finds_them_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEAK_KERNELS", str(kernel_cache()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = read_kernel_table()
    plan = make_plan(read_btf(), table, modules=False)
    for glob, compiled_before in (("do_signalfd4", False), ("do_eventfd", True)):
        scope = NamedScope((glob,)).find(table)
        with Tracer(plan, find_headers(), symbols=scope.symbols) as tracer:
            assert tracer.compiled_before == compiled_before
