"""What kleak run does to the files that it is told to write, on the running kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kleak.store.reader import read_session
from tests.support.lost import lost_in
from tests.support.saved import saved_files

OLDER = next(path for path in saved_files() if path.stem == "6.12--leaky").read_bytes()
RUN = [sys.executable, "-m", "kleak", "run", "--scope", "do_signalfd4", "--tree-timeout", "0"]


def run(*arguments: str, cwd: Path, words: list[str] = RUN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*words, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


def test_files_are_written_though_nobody_reads_the_report(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    subprocess.run(
        [*RUN, "-o", "s.kleak", "--json", "r.json", "--ktap", "r.ktap", "--", "true"],
        cwd=tmp_path, stdout=writer, stderr=writer, check=False, timeout=120,
    )  # fmt: skip
    os.close(writer)
    assert read_session(tmp_path / "s.kleak").circumstances.finished
    assert json.loads((tmp_path / "r.json").read_text())["cycles"] == 1
    assert (tmp_path / "r.ktap").read_text().startswith("KTAP version 1\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--", "no-such-command"], 2),
        (["--scope", "no_such_function_*", "--", "true"], 2),
        (["--json", "s.kleak", "--", "touch", "began"], 2),
        (["--json", "x", "--ktap", "x", "--", "touch", "began"], 2),
        (["--", "touch", "began"], 2),
    ],
)
def test_a_run_that_comes_to_nothing_leaves_the_older_session(
    tmp_path: Path, arguments: list[str], status: int
) -> None:
    (tmp_path / "s.kleak").write_bytes(OLDER)
    words = RUN if "--scope" not in arguments else RUN[:4]
    force = [] if arguments[:2] == ["--", "touch"] else ["--force"]
    done = run("-o", "s.kleak", *force, *arguments, cwd=tmp_path, words=words)
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "s.kleak").read_bytes() == OLDER
    assert [path.name for path in tmp_path.iterdir()] == ["s.kleak"]


def test_a_run_that_is_killed_in_its_first_cycle_leaves_the_older_session(tmp_path: Path) -> None:
    (tmp_path / "s.kleak").write_bytes(OLDER)
    process = subprocess.Popen(
        [*RUN, "-o", "s.kleak", "--force", "--", "sh", "-c", "touch began; sleep 9"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while not (tmp_path / "began").exists():
        assert time.monotonic() < until
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert (tmp_path / "s.kleak").read_bytes() == OLDER
    run("-o", "s.kleak", "--force", "--", "true", cwd=tmp_path)
    assert len(read_session(tmp_path / "s.kleak").cycles) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["began", "s.kleak"]


def test_several_at_once(tmp_path: Path) -> None:
    """Without -o each has its own session; with one -o the second is refused."""
    words = ["--", "sh", "-c", "touch $$.began; while [ ! -e go ]; do sleep 0.1; done"]
    names: list[list[str]] = [[], [], ["-o", "s.kleak"]]
    processes = [
        subprocess.Popen([*RUN, *name, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for name in names
    ]
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("*.began"))) < len(names):
        assert time.monotonic() < until
        time.sleep(0.05)
    refused = run("-o", "s.kleak", "--", "true", cwd=tmp_path)
    (tmp_path / "go").touch()
    for process in processes:
        process.communicate(timeout=60)
    assert (refused.returncode, refused.stderr) == (
        2, "kleak: s.kleak exists: --force replaces it, -o names another file\n",
    )  # fmt: skip
    sessions = list(tmp_path.glob("*.kleak"))
    assert len(sessions) == 3
    for path in sessions:
        assert read_session(path).circumstances.finished


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a session that has little in it."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_in_mid_capture(small: Path) -> None:
    fills = "echo >>began; [ $(wc -l <began) -lt 3 ] || head -c 1M /dev/zero >small/rest; true"
    done = run(
        "--repeat", "5", "-o", "small/s.kleak", "--json", "r.json", "--", "sh", "-c", fills,
        cwd=small.parent,
    )  # fmt: skip
    assert (small.parent / "began").read_text() == 3 * "\n"
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert "session: small/s.kleak, up to cycle 2 (kleak report shows it again)" in lines
    assert lines[-1] == (
        "kleak: small/s.kleak: cannot save the session: No space left on device (it ends with "
        "cycle 2)"
    )
    assert "trust: INCOMPLETE; lost: 2 cycles cut off" in done.stderr
    trust = json.loads((small.parent / "r.json").read_text())["trust"]
    assert lost_in(trust["lost"]) == {"cycles_cut_off": 2}
    found = read_session(small / "s.kleak")
    assert len(found.cycles) == 2
    # Of what is on disk nobody waited for the last frees either.
    assert lost_in(found.trust.lost) == {"cycles_cut_off": 3, "final_wait_cut_short": 1}
