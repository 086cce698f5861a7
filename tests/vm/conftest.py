"""One boot of each kernel, shared by all tests that use the ``guest`` fixture.

A guest keeps about one CPU busy, so two boot at a time; the first test that wants one starts all.

The tests of a module run on the kernels of SERIES, or on those that it names itself, as
``KERNELS = ("dev",)``.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from kleak.errors import UsageError
from kleak.vm.kernels import find_kernel
from tests.support.guest import Guest, GuestJob, run_jobs

SERIES = ("6.1", "6.12")
"""The kernels that ``make setup`` fetches, by the names of its cache."""

LONG = ("test_error_paths.py", "test_pinned.py", "test_visitors.py")
"""Tests that keep an emulated guest busy for ten minutes and more: run with KLEAK_LONG=1."""
collect_ignore = [] if os.environ.get("KLEAK_LONG") else [*LONG]

BUILT_BY = {"dev": "make dev-kernel"}

jobs: defaultdict[str, dict[str, GuestJob]] = defaultdict(dict)
guests: dict[str, Future[Guest]] = {}
cancelled = threading.Event()
boots = ThreadPoolExecutor(max_workers=2)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that wants a kernel once on each kernel of its module."""
    if "series" in metafunc.fixturenames:
        kernels = getattr(metafunc.module, "KERNELS", SERIES)
        metafunc.parametrize("series", kernels, scope="session")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Gather the jobs of the test modules that have a selected test, for its kernels."""
    seen = set()
    for item in session.items:
        callspec = getattr(item, "callspec", None)
        series = None if callspec is None else callspec.params.get("series")
        module = getattr(item, "module", None)
        if series is None or (module, series) in seen:
            continue
        seen.add((module, series))
        for job in getattr(module, "JOBS", ()):
            if job.name in jobs[series]:
                raise pytest.UsageError(f"two test modules declare a guest job {job.name!r}")
            jobs[series][job.name] = job


@pytest.fixture(scope="session")
def kernel(series: str) -> Path:
    """The image of each kernel that the tests are run on."""
    try:
        return find_kernel(series)
    except UsageError as error:
        pytest.skip(f"{error}: run '{BUILT_BY.get(series, 'make setup')}'")


@pytest.fixture(scope="session")
def guest(series: str, kernel: Path) -> Guest:
    """A boot of ``kernel`` in which all jobs were run."""
    if not guests:
        for name, wanted in jobs.items():
            guests[name] = boots.submit(_run, name, list(wanted.values()))
    return guests[series].result()


def _run(series: str, wanted: list[GuestJob]) -> Guest:
    return run_jobs(find_kernel(series), wanted, cancelled)


def pytest_sessionfinish() -> None:
    """End the guests that nobody waits for any more."""
    cancelled.set()
    boots.shutdown(cancel_futures=True)
