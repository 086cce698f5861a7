"""Programs that tests of the tools tier run what kleak wrote through."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

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
