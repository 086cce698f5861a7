"""Sampled stacks, of the whole kernel or of own calls: exact by call site, as the full walk has it.

do_signalfd4() allocates one context for each signalfd that is made.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kleak.capture.engine.declared import FIRST_WALKS
from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.records import Limits, StackTotal
from kleak.capture.engine.sampling import is_call_site
from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Tracing
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.read_session import losses
from kleak.capture.scope import NamedScope
from kleak.model.session import Tally
from kleak.progress import Lines
from kleak.symbols.symboliser import Symboliser
from kleak.watch.ledger import LiveLedger, Watch, open_ledger
from kleak.watch.readings import LiveSite, Since
from tests.support.build_modules import TOP

PROCESSES, MADE, KEPT = 2, 2003, 1009
LOAD = str(TOP / "tests" / "host" / "signalfd_load.py")
LIMITS = Limits(outstanding=262144)
NEVER = 1_000_000


def keep(number: int, place: Path, made: int = 1, processes: int = 1) -> None:
    """Keep signalfds in a process that lives until release()."""
    subprocess.run(
        [sys.executable, LOAD, str(processes), str(made), str(number)], cwd=place, check=True
    )


def release(place: Path) -> None:
    os.kill(int((place / "keeper").read_text()), signal.SIGKILL)
    (place / "keeper").unlink()


# --- kleak run ------------------------------------------------------------------------------


def run(place: Path, *arguments: str) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "kleak", "run", *arguments, "--tree-timeout", "0",
         "--max-outstanding", str(LIMITS.outstanding), "--json", "-", "--",
         sys.executable, LOAD, str(PROCESSES), str(MADE), str(KEPT)],
        cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    release(place)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def contexts(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        site
        for site in report["sites"]
        if site["allocator"] == "kmalloc" and site["frames"][0]["symbol"] == "do_signalfd4"
    ]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("sampled"))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("walked"), "--stacks", "1")


def test_counts_are_exact_and_those_of_the_full_walk(
    sampled: dict[str, Any], walked: dict[str, Any]
) -> None:
    (site,), (known,) = contexts(sampled), contexts(walked)
    assert site["outstanding"] == known["outstanding"] == {"count": KEPT, "bytes": 8 * KEPT}
    assert site["requested_bytes"] == known["requested_bytes"] == 8 * KEPT
    assert site["per_cycle"] == known["per_cycle"]


def test_the_stack_that_is_shown_is_one_that_was_walked(
    sampled: dict[str, Any], walked: dict[str, Any]
) -> None:
    (site,), (known,) = contexts(sampled), contexts(walked)
    assert site["frames"] == known["frames"]
    stacks = site["stacks"]
    assert stacks["call_site"] == site["frames"][0]
    # The kept ones come first, so the first walks are among them.
    assert FIRST_WALKS <= stacks["walked"] < KEPT // 10
    assert (stacks["different"], stacks["shown"]) == (1, stacks["walked"])
    assert "stacks" not in known


def test_what_was_sampled_is_said(sampled: dict[str, Any], walked: dict[str, Any]) -> None:
    said = [[n for n in r["trust"]["notes"] if "sampled" in n] for r in (sampled, walked)]
    assert [len(notes) for notes in said] == [1, 0]
    assert "one in 256" in said[0][0]


def test_own_calls_are_sampled_too(tmp_path: Path, walked: dict[str, Any]) -> None:
    report = run(tmp_path, "--scope", "do_signalfd4", "--own-calls")
    (site,), (known,) = contexts(report), contexts(walked)
    for what in ("outstanding", "requested_bytes", "per_cycle", "frames"):
        assert site[what] == known[what]
    assert FIRST_WALKS <= site["stacks"]["walked"] < KEPT // 10
    assert report["trust"]["observed"]["stack_walks"] < PROCESSES * MADE // 10
    assert report["trust"]["lost"] == {}
    assert len([note for note in report["trust"]["notes"] if "sampled" in note]) == 1


def test_other_scopes_walk_every_stack(tmp_path: Path) -> None:
    for scope in (["--scope", "do_signalfd4"], ["--by-process"]):
        report = run(tmp_path, *scope)
        (site,) = contexts(report)
        assert site["outstanding"]["count"] == KEPT
        assert not any("stacks" in site for site in report["sites"])
        assert not any("sampled" in note for note in report["trust"]["notes"])


# --- the tracer -----------------------------------------------------------------------------


@contextmanager
def tracing(walk_every: int, limits: Limits = LIMITS) -> Iterator[tuple[Tracer, Symboliser]]:
    table = read_kernel_table()
    scope = NamedScope().find(table).symbols
    plan = make_plan(read_btf(), table, modules=False)
    with Tracer(
        plan, find_headers(), symbols=scope, limits=limits, walk_every=walk_every
    ) as tracer:
        tracer.count_allocations(True, cycle=1)
        yield tracer, Symboliser(table)


def of_contexts(
    tracer: Tracer, symbols: Symboliser, cycle: int
) -> tuple[int, list[StackTotal], list[StackTotal]]:
    """The call site of the contexts, their totals by stack, and the one by call site."""
    call_sites = tracer.call_sites() or {}
    rows = [
        (row.stack if is_call_site(row.stack) else call_sites.get(row.stack, 0), row)
        for row in tracer.totals()
        if row.family == "kmalloc" and row.cycle == cycle
    ]
    (call_site,) = {at for at, _ in rows if at and symbols.resolve(at, 0).symbol == "do_signalfd4"}
    own = [row for at, row in rows if at == call_site]
    return (
        call_site,
        [row for row in own if not is_call_site(row.stack)],
        [row for row in own if is_call_site(row.stack)],
    )


def test_the_books_balance(tmp_path: Path) -> None:
    """Every event that was booked is in one total, and every outstanding object in the ledger."""
    with tracing(64) as (tracer, symbols):
        keep(KEPT, tmp_path, MADE, PROCESSES)
        tracer.count_allocations(False)
        _, by_stack, by_call_site = of_contexts(tracer, symbols, 1)
        assert sum(row.allocated for row in by_stack + by_call_site) == KEPT + PROCESSES * MADE
        assert sum(row.outstanding for row in by_stack + by_call_site) == KEPT
        made = sum(row.allocated for row in tracer.totals())
        counted = tracer.counters().counted
        assert made == counted["allocated"] - counted["double_events"]
        assert losses(tracer.counters()) == {}
        for _ in range(1000):  # until nothing was freed while both were read
            freed = counted["freed"]
            outstanding = sum(row.outstanding for row in tracer.totals())
            entries = len(list(tracer.outstanding()))
            counted = tracer.counters().counted
            if counted["freed"] == freed:
                break
        assert entries == outstanding
    release(tmp_path)


def test_objects_of_one_tick_have_an_order(tmp_path: Path) -> None:
    """The clock is read once in a tick: those made on one CPU meanwhile are each a bit younger."""
    with tracing(64) as (tracer, _):
        before = time.monotonic_ns()
        subprocess.run(
            ["taskset", "-c", "0", sys.executable, LOAD, "0", "0", str(KEPT)],
            cwd=tmp_path,
            check=True,
        )
        after = time.monotonic_ns()
        keeper = int((tmp_path / "keeper").read_text())
        times = [entry.time_ns for entry in tracer.outstanding() if entry.tgid == keeper]
    release(tmp_path)
    assert len(times) > 2 * KEPT  # contexts and files
    assert len(set(times)) == len(times)
    assert before < min(times) < max(times) < after
    steps = [two - one for one, two in pairwise(sorted(times))]
    assert steps.count(1) > KEPT  # most of them, so most are not of the clock


@pytest.mark.parametrize("walk_every", [1, 256])
def test_krealloc_is_not_hooked_where_call_sites_decide(walk_every: int) -> None:
    """What is hooked by fexit is called by a trampoline, the call site of what it allocates."""
    with tracing(walk_every) as (tracer, _):
        notes = [note for note in tracer.notes if "krealloc()" in note and "call sites" in note]
        assert len(notes) == (walk_every > 1)
        assert walk_every == 1 or "krealloc" not in tracer.attachments


def test_a_marked_call_site_is_walked_more(tmp_path: Path) -> None:
    with tracing(NEVER) as (tracer, symbols):
        keep(KEPT, tmp_path)
        call_site, by_stack, by_call_site = of_contexts(tracer, symbols, 1)
        assert sum(row.allocated for row in by_stack) == FIRST_WALKS
        assert sum(row.allocated for row in by_call_site) == KEPT + 1 - FIRST_WALKS
        release(tmp_path)

        tracer.walk_more([call_site])
        tracer.count_allocations(True, cycle=2)
        keep(KEPT, tmp_path)
        _, by_stack, by_call_site = of_contexts(tracer, symbols, 2)
        more = sum(row.allocated for row in by_stack)
        assert KEPT // 8 < more < KEPT // 8 + 2 * FIRST_WALKS
        assert more + sum(row.allocated for row in by_call_site) == KEPT + 1
        release(tmp_path)

        tracer.walk_more([])
        tracer.count_allocations(True, cycle=3)
        keep(KEPT, tmp_path)
        _, by_stack, _ = of_contexts(tracer, symbols, 3)
        assert sum(row.allocated for row in by_stack) == FIRST_WALKS
        release(tmp_path)


def test_call_sites_without_room_are_said(tmp_path: Path) -> None:
    """What found room is booked to the last one, whatever else does not."""
    with tracing(64, Limits(262144, 4096, 16)) as (tracer, _):
        keep(KEPT, tmp_path)
        tracer.count_allocations(False)
        assert losses(tracer.counters())["allocations_beyond_max_totals"] > 0
        counted = tracer.counters().counted
        totals = tracer.totals()
        assert len(totals) <= 16
        assert sum(row.allocated for row in totals) == (
            counted["allocated"] - counted["double_events"]
        )
    release(tmp_path)


# --- kleak watch ----------------------------------------------------------------------------


def row(ledger: LiveLedger) -> tuple[LiveSite, Tally]:
    ((site, held),) = [
        (site, held)
        for site, held in ledger.read().held[Since.START].items()
        if site.function == "do_signalfd4" and site.allocator == "kmalloc"
    ]
    return site, Tally(held.objects, held.size_bytes)


def test_watch_has_a_row_for_a_call_site(tmp_path: Path) -> None:
    with open_ledger(Watch(NamedScope(), None, Tracing(limits=LIMITS)), Lines()) as ledger:
        keep(KEPT, tmp_path)
        site, held = row(ledger)
        assert held == Tally(KEPT, 8 * KEPT)
        assert site.origin[0].symbol == "do_signalfd4"
        assert len(site.frames) > 2  # a stack that was walked, and not the call site alone

        ledger._tracer.evict()
        keeper = (tmp_path / "keeper").read_text()
        keep(KEPT, tmp_path)
        again, held = row(ledger)
        assert again is site
        assert held == Tally(2 * KEPT, 16 * KEPT)
        # It had grown, so more of the second half was walked.
        (traced,) = [
            traced
            for traced in ledger.session(keep=0).sites
            if traced.stacks and traced.stacks.call_site == site.origin[0]
        ]
        assert traced.cycles[0].outstanding == Tally(2 * KEPT, 16 * KEPT)
        assert traced.stacks is not None
        assert traced.stacks.walked > KEPT // 8
    release(tmp_path)
    os.kill(int(keeper), signal.SIGKILL)
