"""A real capture that is killed at random points: every cycle that was over is in the file."""

from __future__ import annotations

import random
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kleak.capture.machine.settings import KPTR_RESTRICT
from kleak.frames.scope import only_interrupted
from kleak.frames.stacks import is_bookkeeping
from kleak.store.reader import read_session

KILLS = 6
CYCLES = 40
HOLD = Path(__file__).with_name("hold_pipes.py")


def kleak(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kleak", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(autouse=True)
def addresses_hidden():
    """As most machines have it; and so it is left, by a run that was killed too."""
    before = KPTR_RESTRICT.read_text()
    KPTR_RESTRICT.write_text("0")
    yield
    until = time.monotonic() + 5
    while KPTR_RESTRICT.read_text() != "0\n" and time.monotonic() < until:
        time.sleep(0.01)
    left = KPTR_RESTRICT.read_text()
    KPTR_RESTRICT.write_text(before)
    assert left == "0\n"


def begun(directory: Path) -> int:
    """How many cycles have begun."""
    path = directory / "begun"
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_run_keeps_its_cycles(tmp_path, seed):
    run = kleak(
        "run", "--scope", "alloc_pipe_info", "--by-process", "--tree-timeout", "0",
        "--repeat", str(CYCLES), "-o", "run.kleak", "--",
        "/usr/bin/python3", str(HOLD), "begun", "20",
        cwd=tmp_path,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while begun(tmp_path) < 2:
            assert run.poll() is None, run.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0, 3))
    finally:
        run.send_signal(signal.SIGKILL)
        run.communicate()
    cycles = begun(tmp_path)
    found = read_session(tmp_path / "run.kleak")
    assert cycles - 1 <= len(found.cycles) <= cycles
    assert found.circumstances.planned_cycles == CYCLES
    assert not found.circumstances.finished
    # What judging sets aside is in the file as well: the slab allocator's own vectors now and then.
    sites = [
        site
        for site in found.sites
        if not is_bookkeeping(site.frames, site.allocator)
        and not only_interrupted(site.frames, found.target)
    ]
    assert len(sites) == 2  # struct pipe_inode_info, and the array of its buffers
    for site in sites:
        # The pipe that tells of the others is closed when its cycle is over; in the last cycle
        # its free may have come after the save.
        kept = [tally.outstanding.count for tally in site.cycles]
        assert all(number in (7, 8) for number in kept), kept
        assert all(one.comm == "python3" for one in site.kept)


def test_a_whole_run_leaves_a_session_under_a_default_name(tmp_path):
    run = kleak(
        "run", "--scope", "alloc_pipe_info", "--by-process", "--tree-timeout", "0",
        "--repeat", "3", "--keep", "5", "--",
        "/usr/bin/python3", str(HOLD), "begun", "20",
        cwd=tmp_path,
    )  # fmt: skip
    stdout, stderr = run.communicate(timeout=120)
    (path,) = tmp_path.glob("*.kleak")
    assert re.fullmatch(r"kleak-alloc_pipe_info-\d{8}T\d{6}\.kleak", path.name)
    assert f"session: {path.name} " in stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read_session(path)
    assert found.circumstances.finished
    assert len(found.cycles) == 3
    assert [sample.when for sample in found.circumstances.samples] == [
        "start",
        *["unloaded", "settled"] * 3,
        "end",
    ]
    assert sorted(len(site.kept) for site in found.sites)[-2:] == [5, 5]
    (setting,) = found.circumstances.settings
    assert (setting.path, setting.restored) == ("/proc/sys/kernel/kptr_restrict", True)
    (answer,) = [one for one in found.circumstances.answers if one.witness == "vmallocinfo"]
    assert answer.text.startswith("0xff")
    again = kleak("report", path.name, cwd=tmp_path)
    shown, _ = again.communicate(timeout=60)
    assert shown
    assert shown in stderr
    assert stdout == ""  # that of the command
    assert again.returncode == run.returncode == 1


def test_a_run_without_a_cycle_leaves_no_session(tmp_path):
    run = kleak("run", "--scope", "no_such_function_*", "--", "true", cwd=tmp_path)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "no function of this kernel matches" in stderr
    assert list(tmp_path.iterdir()) == []
