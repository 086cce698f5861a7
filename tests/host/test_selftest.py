"""The self-test on the running kernel: what it says of each kind, with each hook broken in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from kleak.capture.engine.events import plan_here
from kleak.capture.engine.headers import find_headers, kernel_cache
from kleak.capture.engine.hooks import Plan
from kleak.capture.engine.records import SymbolScope
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.selftest.causes import CAUSES, NOT_TESTED
from kleak.capture.selftest.measure import SelfTest
from kleak.model.session import NOT_SEEN, SEEN, UNTESTED
from kleak.symbols.kernel_table import KernelTable

TOLD_BY = {
    "kfree": "kmalloc",
    "kmalloc": "kmalloc",
    "kmem_cache_free": "slab caches",
    "kmem_cache_alloc": "slab caches",
    "alloc_vmap_area": "vmalloc",
    "free_vmap_area_noflush": "vmalloc",
    "percpu_alloc_percpu": "per-CPU memory",
    "percpu_free_percpu": "per-CPU memory",
    "mm_page_alloc": "pages",
    "mm_page_free": "pages",
    "kvfree_call_rcu": "kfree_rcu",
}
"""By event, the kind that shows that it is not heard of."""


@cache
def table() -> KernelTable:
    return read_kernel_table()


def plan(without: str | None = None) -> Plan:
    whole = plan_here(table(), modules=False, processes=True)
    return replace(whole, events=[event for event in whole.events if event.name != without])


def measure(planned: Plan, ask: Callable[[Tracer], dict[str, str]]) -> dict[str, str]:
    scope = SymbolScope((table().text,), everything=True)
    with Tracer(planned, find_headers(None), symbols=scope, self_test=ask) as tracer:
        assert tracer.outstanding_count() == 0  # all of it was its twin's
        return tracer.self_test


@pytest.fixture(scope="module")
def whole() -> dict[str, str]:
    return measure(plan(), SelfTest(table(), remembers=False))


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.kind)
def test_each_kind_is_seen_where_its_events_are_heard_of(
    whole: dict[str, str], cause: type
) -> None:
    heard = plan()
    with Tracer(heard, find_headers(None), symbols=SymbolScope((table().text,), True)) as tracer:
        attached = set(tracer.attachments)
    events = {event for event, kind in TOLD_BY.items() if kind == cause.kind}
    if events <= attached:
        assert whole[cause.kind] == SEEN
    else:
        assert whole[cause.kind].startswith(NOT_SEEN)


def test_what_user_space_cannot_cause_is_not_claimed(whole: dict[str, str]) -> None:
    assert {kind for kind in whole if whole[kind].startswith(UNTESTED)} <= set(NOT_TESTED)
    assert whole["DMA memory"].startswith(UNTESTED)


@pytest.mark.parametrize("event", TOLD_BY)
def test_a_hook_that_is_broken_is_told(event: str) -> None:
    found = measure(plan(without=event), SelfTest(table(), remembers=False))
    assert found[TOLD_BY[event]].startswith(NOT_SEEN), found


def test_it_is_done_once_a_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEAK_KERNELS", str(kernel_cache()))  # the headers are there
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    class Counting(SelfTest):
        def _measure(self, tracer: Tracer) -> dict[str, str]:
            asked.append(tracer)
            return super()._measure(tracer)

    first = measure(plan(), Counting(table()))
    assert measure(plan(), Counting(table())) == first
    assert len(asked) == 1
    # A hook less is another tracer: what was said of the other one does not count.
    assert measure(plan(without="mm_page_free"), Counting(table())) != first
    assert len(asked) == 2
