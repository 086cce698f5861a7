"""One boot of each kernel, shared by all tests that use the ``guest`` fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from kleak.errors import UsageError
from kleak.vm import find_kernel
from tests.guest import Guest, GuestJob, run_jobs

SERIES = ("6.1", "6.12")
"""The kernels that ``make setup`` fetches, by the names of its cache."""

jobs: dict[str, GuestJob] = {}
guests: dict[Path, Guest] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Gather the jobs of the test modules that have a selected test."""
    seen = set()
    for item in session.items:
        module = getattr(item, "module", None)
        if module is None or module in seen:
            continue
        seen.add(module)
        for job in getattr(module, "JOBS", ()):
            if job.name in jobs:
                raise pytest.UsageError(f"two test modules declare a guest job {job.name!r}")
            jobs[job.name] = job


@pytest.fixture(scope="session", params=SERIES)
def kernel(request: pytest.FixtureRequest) -> Path:
    """The image of each kernel that the tests are run on."""
    try:
        return find_kernel(request.param)
    except UsageError as error:
        pytest.skip(f"{error}: run 'make setup'")


@pytest.fixture(scope="session")
def guest(kernel: Path) -> Guest:
    """A boot of ``kernel`` in which all jobs were run."""
    if kernel not in guests:
        guests[kernel] = run_jobs(kernel, list(jobs.values()))
    return guests[kernel]
