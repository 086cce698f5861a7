"""What strangers wrote, and names of files, in what kleak says: never as control characters."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.saved import saved_files

EVIL = "\x1b]0;pwn\x07\u202e"
SAMPLE = saved_files()[0]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copyfile(SAMPLE, tmp_path / "good.kleak")
    (tmp_path / f"{EVIL}.kleak").write_text("x")
    (tmp_path / f"{EVIL}.toml").write_text("=")
    (tmp_path / "rules").write_text(f"{EVIL}:x\n")
    (tmp_path / "report.json").write_text(json.dumps({"schema": EVIL}))
    (tmp_path / "snapshots/001").mkdir(parents=True)
    (tmp_path / "snapshots/001/manifest").write_text(f"kleak-snapshot: {EVIL}\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", f"{EVIL}.kleak"],
        ["report", f"{EVIL}missing.kleak"],
        ["report", "good.kleak", "--suppressions", "rules"],
        ["report", "good.kleak", "--baseline", "report.json"],
        ["report", "good.kleak", "--format", EVIL],
        ["diff", "report.json", "report.json"],
        ["analyze", "snapshots"],
        ["analyze", f"{EVIL}.kleak", f"{EVIL}.kleak"],
        ["triage", f"{EVIL}missing"],
        [f"{EVIL}command"],
        ["report", "good.kleak", "-o", f"{EVIL}/x.json"],
        ["--debug", "report", f"{EVIL}missing.kleak"],
    ],
)
def test_no_escape_reaches_the_terminal(place: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kleak", *arguments], cwd=place, capture_output=True, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode in (2, 4)
    assert "\x1b" not in said
    assert "\x07" not in said
    assert "\u202e" not in said
