"""The tiers of tests: pure, host, vm and tools.

Tests in tests/host and tests/vm, or marked so, need what this machine may not have. Such a test
is skipped with the reason, and the reason stands at the end of the run; KLEAK_REQUIRE=host,vm,tools
turns every skip of a demanded tier, whoever asked for it, into a failure.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest

from kleak.capture.engine.headers import find_headers
from kleak.errors import KleakError
from kleak.vm.boot import check_busybox, virtme_run
from kleak.vm.kernels import find_kernel

TIERS = ("host", "vm", "tools")
HERE = Path(__file__).parent

outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
skip_reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)


@cache
def demanded() -> frozenset[str]:
    """Return the tiers that KLEAK_REQUIRE names."""
    names = {name.strip() for name in os.environ.get("KLEAK_REQUIRE", "").split(",")} - {""}
    if unknown := names.difference(TIERS):
        raise pytest.UsageError(f"KLEAK_REQUIRE: no tier {', '.join(sorted(unknown))}")
    return frozenset(names)


@cache
def why_not(tier: str) -> str | None:
    """Return why ``tier`` cannot run here, None if it can."""
    try:
        if tier == "tools":
            return None  # each test needs another program, and skips without it
        if tier == "vm":
            virtme_run()
            check_busybox(find_kernel())
            return None
        if os.geteuid() != 0:
            return "needs root"
        if importlib.util.find_spec("bcc") is None:
            return "needs bcc in this Python: apt-get install python3-bpfcc, and run 'make test'"
        find_headers()
    except KleakError as error:
        return str(error)
    return _why_no_bpf()


def _why_no_bpf() -> str | None:
    libbcc = ctypes.CDLL("libbcc.so.0", use_errno=True)
    fd = libbcc.bcc_create_map(2, b"kleak_tests", 4, 8, 1, 0)  # 2: BPF_MAP_TYPE_ARRAY
    if fd < 0:
        return f"the kernel refuses a BPF map: {os.strerror(ctypes.get_errno())}"
    os.close(fd)
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "the kernel has no BTF (CONFIG_DEBUG_INFO_BTF)"
    return None


def tier_of(item: pytest.Item) -> str:
    """Return the tier of ``item``: its marker, "pure" without one."""
    return next((tier for tier in TIERS if item.get_closest_marker(tier)), "pure")


def pytest_configure() -> None:
    """Refuse a KLEAK_REQUIRE that names no tier, before anything runs."""
    demanded()
    # What a shell runs in the background ignores it, and so would all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of a tier's directory."""
    for item in items:
        for tier in TIERS:
            if item.path.is_relative_to(HERE / tier):
                item.add_marker(tier)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tier cannot run, before its fixtures do any work."""
    tier = tier_of(item)
    if tier != "pure" and (reason := why_not(tier)) is not None:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count what became of each tier; make a skip of a demanded tier a failure."""
    report = yield
    tier = tier_of(item)
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if tier in demanded():
            report.outcome = "failed"
            report.longrepr = f"KLEAK_REQUIRE demands {tier}, but this test was skipped: {reason}"
        else:
            skip_reasons[tier][reason.removeprefix("Skipped: ")] += 1
    if report.when == "call" or not report.passed:
        outcomes[tier][report.outcome] += 1
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what ran of each tier, and why the rest did not."""
    terminalreporter.section("tiers")
    for tier in ("pure", *TIERS):
        counts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes[tier].items()))
        terminalreporter.write_line(f"{tier}: {counts or 'no tests selected'}")
        for reason, count in skip_reasons[tier].items():
            terminalreporter.write_line(f"    {count} skipped: {reason}")
