"""A tier that cannot run is skipped with its reason, and fails when it was demanded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import TOP

SELECTED = "tests/vm/test_guest.py::test_imports_bcc_and_this_tree"


def run_pytest(tmp_path: Path, require: str) -> subprocess.CompletedProcess[str]:
    """Run one vm test where no kernel can be found."""
    environment = {**os.environ, "KLEAK_KERNELS": str(tmp_path), "KLEAK_REQUIRE": require}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", SELECTED],
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_tier_that_cannot_run_is_skipped_and_named_at_the_end(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "")
    assert ended.returncode == 0, ended.stdout
    tiers = ended.stdout.split(" tiers ")[1]
    assert "vm: 2 skipped" in tiers
    assert "skipped: " in tiers.split("vm: 2 skipped")[1]


def test_a_demanded_tier_that_cannot_run_fails(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "vm")
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout
    assert "KLEAK_REQUIRE demands vm, but this test was skipped: " in ended.stdout
    assert "vm: 2 failed" in ended.stdout


def test_another_tier_demanded_changes_nothing(tmp_path: Path) -> None:
    assert run_pytest(tmp_path, "host").returncode == 0


def test_a_tier_of_no_such_name_is_refused(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "vm,hots")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no tier hots" in ended.stderr
