"""A setting that is held for a session comes back, however the session ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kleak.capture.machine.settings import held_setting, setting_changes

HOLDER = """
import sys, time
from pathlib import Path
from kleak.capture.machine.settings import held_setting
with held_setting(Path(sys.argv[1]), "scan=off", "scan=on"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kmemleak"
    path.write_text("scan=on\n")
    return path


def test_held_and_put_back(file: Path) -> None:
    with held_setting(file, "scan=off", "scan=on"):
        assert file.read_text() == "scan=off"
    assert file.read_text() == "scan=on\n"
    (change,) = [change for change in setting_changes() if change.path == str(file)]
    assert (change.before, change.during, change.restored) == ("scan=on", "scan=off", True)


def test_put_back_after_an_error(file: Path) -> None:
    with pytest.raises(KeyboardInterrupt), held_setting(file, "scan=off", "scan=on"):
        raise KeyboardInterrupt
    assert file.read_text() == "scan=on\n"


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_put_back_when_the_process_is_killed(file: Path, death: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert file.read_text() == "scan=off"
        process.send_signal(death)
        process.wait()
    deadline = time.monotonic() + 30
    while file.read_text() != "scan=on\n" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert file.read_text() == "scan=on\n"


def test_told_where_it_could_not_be_put_back(file: Path) -> None:
    with held_setting(file, "scan=off", "scan=on"):
        file.unlink()
        file.mkdir()
    (change,) = [change for change in setting_changes() if change.path == str(file)]
    assert not change.restored


def test_refused(tmp_path: Path) -> None:
    absent = tmp_path / "no" / "kmemleak"
    with pytest.raises(FileNotFoundError), held_setting(absent, "scan=off", "scan=on"):
        pytest.fail("it was not changed")
    assert not os.path.exists(absent)
    assert str(absent) not in [change.path for change in setting_changes()]
