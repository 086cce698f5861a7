"""The search for pointers on the running kernel: a process that holds hundreds of things."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kleak.model.witnesses import not_asked
from kleak.store.reader import read_session
from tests.support.build_modules import TOP

pytestmark = pytest.mark.host

HOLDER = TOP / "tests" / "host" / "hold_everything.py"
HELD_OF_EACH = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the report and the session of a holder that kleak watched begin."""
    place = tmp_path_factory.mktemp("reachability")
    pid_file = place / "pid"
    # The command ends when the holder has everything; that goes on.
    begin = f"{sys.executable} {HOLDER} {HELD_OF_EACH} {pid_file} &"
    wait = f"{begin} while ! [ -s {pid_file} ]; do sleep 0.1; done"
    try:
        subprocess.run(
            [
                *(sys.executable, "-m", "kleak", "run", "--by-process", "--tree-timeout", "0"),
                *("--json", "report.json", "-o", "holder.kleak", "--pointer-seconds", "300"),
                *("--", "sh", "-c", wait),
            ],
            cwd=place,
            check=False,  # 1 where something was found: a test says what
            timeout=500,
            stderr=subprocess.DEVNULL,
        )
        yield place
    finally:
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_of_what_a_process_holds_nothing_is_called_lost(place):
    report = json.loads((place / "report.json").read_text())
    assert report["trust"]["witnesses"]["reachability"] == "used"
    session = read_session(place / "holder.kleak")
    found = [site for site in session.sites if site.pointers is not None]
    assert sum(site.pointers.searched for site in found) > 5 * HELD_OF_EACH
    unheld = [(site.frames[:4], site.pointers) for site in found if site.pointers.unreferenced]
    assert unheld == []
    assert [
        site["rank"] for site in report["sites"] if site["verdict"] in ("likely", "confirmed")
    ] == []


def test_the_holders_are_named(place):
    session = read_session(place / "holder.kleak")
    holders = {what for site in session.sites if site.pointers for what, _ in site.pointers.holders}
    # A cache and the offset, or the member where the cache has the name of its type.
    assert any(re.search(r"^struct \w+\.|^\w+\+\d+$", what) for what in holders), holders
    assert any("outstanding too" in what for what in holders)


def test_it_can_be_left_out(place):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "kleak",
            "run",
            "--no-pointers",
            "--by-process",
            "-o",
            "no.kleak",
            "--",
            "true",
        ],
        cwd=place,
        check=True,
        timeout=300,
        stderr=subprocess.DEVNULL,
    )
    assert read_session(place / "no.kleak").trust.witnesses["reachability"] == not_asked(
        "--no-pointers"
    )


def test_a_search_that_has_no_time_says_nothing(place):
    wait = "sleep 0.2 & sleep 0.1"
    subprocess.run(
        [
            *(sys.executable, "-m", "kleak", "run", "--by-process", "-o", "short.kleak"),
            *("--tree-timeout", "0", "--pointer-seconds", "0.01", "--", "sh", "-c", wait),
        ],
        cwd=place,
        check=True,
        timeout=300,
        stderr=subprocess.DEVNULL,
    )
    session = read_session(place / "short.kleak")
    assert all(site.pointers is None for site in session.sites)
