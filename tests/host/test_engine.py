"""The engine on the running kernel, exactly: a scope of kernel functions that nobody else uses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kleak.capture.engine.declared import COPIED_EVENTS
from kleak.capture.engine.events import plan_here
from kleak.capture.engine.hooks import TRACEPOINTS
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.store.reader import read_session
from tests.support.build_modules import TOP

PROCESSES, MADE, KEPT, RUNS = 5, 4001, 37, 3
KPTR_RESTRICT = Path("/proc/sys/kernel/kptr_restrict")


def kleak(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kleak", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("signalfd")
    yield place
    if (place / "keeper").exists():
        os.kill(int((place / "keeper").read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def report(place: Path) -> dict[str, Any]:
    load = TOP / "tests" / "host" / "signalfd_load.py"
    result = kleak(
        "run", "--scope", "do_signalfd4", "--tree-timeout", "0", "--json", "-", "--",
        sys.executable, str(load), str(PROCESSES), str(MADE), str(KEPT),
        cwd=place,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def own_use(report: dict[str, Any]) -> int:
    """The slab allocator's own vectors for what it accounts: in the books, but no sites."""
    return sum(
        int(number)
        for note in report["trust"]["notes"]
        for number in re.findall(r"allocators' own bookkeeping, (\d+) object", note)
    )


def test_kept_contexts_are_counted_exactly(report: dict[str, Any]) -> None:
    """do_signalfd4() itself allocates one context, of the 8 bytes of a signal set."""
    (site,) = [s for s in report["sites"] if s["frames"][0]["symbol"] == "do_signalfd4"]
    assert site["allocator"] == "kmalloc"
    assert site["outstanding"] == {"count": KEPT, "bytes": 8 * KEPT}
    assert site["requested_bytes"] == 8 * KEPT


def test_every_site_keeps_what_the_keeper_keeps(report: dict[str, Any]) -> None:
    """A file, its dentry and what security modules add: one each for a signalfd, no more."""
    assert report["sites"]
    for site in report["sites"]:
        assert site["outstanding"]["count"] == KEPT, site


def test_books_balance(report: dict[str, Any]) -> None:
    observed = report["trust"]["observed"]
    sites = [site["outstanding"]["count"] for site in report["sites"]]
    own = own_use(report)
    assert observed["allocations"] - observed["frees"] == sum(sites) + own
    assert observed["allocations"] == len(sites) * (PROCESSES * MADE + KEPT) + own


def test_no_free_is_unexplained_and_nothing_is_lost(report: dict[str, Any]) -> None:
    trust = report["trust"]
    assert trust["observed"]["frees_of_unseen_allocations"] == 0
    assert "frees_inferred_from_address_reuse" not in trust["repaired"]
    assert trust["complete"], trust


def keep_signalfds(kept: int, *limits: str, cwd: Path) -> tuple[dict[str, Any], str]:
    """Keep signalfds open under ``limits``, which they exceed; return the report, and what is said.

    Every file of a signalfd is one allocation of each site.
    """
    load = TOP / "tests" / "host" / "signalfd_load.py"
    result = kleak(
        "run", "--scope", "do_signalfd4", *limits, "--strict", "--json", "-",
        "--tree-timeout", "0", "--", sys.executable, str(load), "1", "1", str(kept),
        cwd=cwd,
    )  # fmt: skip
    os.kill(int((cwd / "keeper").read_text()), signal.SIGKILL)
    assert result.returncode == 5, result.stderr
    return json.loads(result.stdout), result.stderr


def test_full_ledger_is_said(tmp_path: Path) -> None:
    """What found room is counted, and what did not is told, to the last one."""
    before, kept, limit = KPTR_RESTRICT.read_text(), 101, 29
    session = tmp_path / "full.kleak"
    report, said = keep_signalfds(
        kept, "--max-outstanding", str(limit), "-o", str(session), cwd=tmp_path
    )
    trust = report["trust"]
    assert trust["observed"]["allocations"] - trust["observed"]["frees"] == limit
    counts = [site["outstanding"]["count"] for site in report["sites"]]
    assert sum(counts) + own_use(report) == limit
    # One more was made and closed. The slab allocator may have added vectors of its own.
    made = trust["observed"]["allocations"]
    made += trust["lost"]["allocations_beyond_max_outstanding"]
    assert 0 <= made - len(report["sites"]) * (kept + 1) < kept
    assert all(0 < count <= kept for count in counts)
    assert "INCOMPLETE" in said
    # Two sources of each site's count: what was added up, and the ledger's entries.
    sites = read_session(session).sites
    assert sum(len(site.kept) for site in sites) == limit
    assert all(len(site.kept) == site.outstanding.count for site in sites)
    assert KPTR_RESTRICT.read_text() == before


def test_full_stacks_are_said(tmp_path: Path) -> None:
    """The sites that found room are counted as if nothing were missing."""
    kept = 101
    report, said = keep_signalfds(kept, "--max-stacks", "2", cwd=tmp_path)
    assert report["sites"]
    for site in report["sites"]:
        assert site["outstanding"]["count"] == kept, site
    observed, lost = report["trust"]["observed"], report["trust"]["lost"]
    assert observed["allocations"] == len(report["sites"]) * (kept + 1)
    assert lost["allocations_beyond_max_stacks"] >= kept + 1
    assert "INCOMPLETE" in said


# Imported first: nobody else may be able to read this tree.
AS_NOBODY = """
import os, sys
from kleak.cli import main
os.setgroups([]), os.setgid(65534), os.setuid(65534)
main()
"""


def test_not_root() -> None:
    result = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "run", "--scope", "*", "--", "true"],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 3
    assert result.stderr == "kleak: tracing the kernel needs root: run it under sudo\n"
    assert result.stdout == ""


def test_command_that_fails(tmp_path: Path) -> None:
    result = kleak("run", "--scope", "do_signalfd4", "--", "sh", "-c", "exit 7", cwd=tmp_path)
    assert result.returncode == 7
    assert result.stderr.splitlines()[-1] == "kleak: sh failed with exit status 7"


def test_command_that_is_not_there(tmp_path: Path) -> None:
    result = kleak("run", "--scope", "do_signalfd4", "--", "./no-such-command", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "kleak: ./no-such-command: No such file or directory\n"


def test_scope_that_matches_nothing(tmp_path: Path) -> None:
    result = kleak("run", "--scope", "no_such_function_*", "--", "true", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "kleak: no function of this kernel matches no_such_function_*\n"


def test_each_tracepoint_with_two_copies_has_marks_under_its_name() -> None:
    """Else what its first copy was skipped would be counted under another, or not at all."""
    plan = plan_here(read_kernel_table(), modules=False)
    copied = {
        event.name
        for event in plan.events
        for way in event.ways
        if way.attachment in TRACEPOINTS and len(way.programs) == 2
    }
    assert copied <= set(COPIED_EVENTS)
    assert {"kmalloc", "kfree", "mm_page_alloc", "mm_page_free"} <= copied
