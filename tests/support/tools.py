"""Programs that tests of the tools tier run what kleak wrote through."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kleak.capture.engine.headers import kernel_cache

FLAMEGRAPH = Path("/usr/share/perl5/Devel/NYTProf/flamegraph.pl")


def need(program: str) -> str:
    """Return where ``program`` is; skip the test where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"no {program} on this machine: run 'make setup'")
    return path


def need_flamegraph() -> str:
    """Return Debian's copy of flamegraph.pl; skip the test where it is not installed."""
    if not FLAMEGRAPH.exists():
        pytest.skip(f"no {FLAMEGRAPH} (libdevel-nytprof-perl): run 'make setup'")
    return str(FLAMEGRAPH)


def need_kunit() -> Path:
    """Return the directory of the kernel's KTAP parser; skip the test where it was not fetched."""
    directory = kernel_cache() / "kunit"
    if not (directory / "kunit_parser.py").exists():
        pytest.skip(f"no {directory}/kunit_parser.py (linux-source-6.12): run 'make setup'")
    return directory
