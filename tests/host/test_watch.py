"""kleak watch on the running kernel, in a terminal whose keys are pressed, and in a pipe.

Signalfds are counted: do_signalfd4() allocates one context for each, of 8 bytes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kleak.watch.table import HEADER
from tests.host import pid_namespaces
from tests.support.build_modules import TOP
from tests.support.tmux import PATIENCE_S, Tmux

BEFORE, SINCE, PIPED = 23, 41, 59
KLEAK = [sys.executable, "-m", "kleak"]
LOAD = str(TOP / "tests" / "host" / "signalfd_load.py")
SCOPE = ["--scope", "do_signalfd4"]
CONTEXTS = "function=do_signalfd4"

Keep = Callable[[int], None]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """Make so many signalfds that stay, and as many again that do not; end them with the test."""
    keepers = []

    def make(number: int) -> None:
        subprocess.run(
            [sys.executable, LOAD, "1", str(number), str(number)], cwd=tmp_path, check=True
        )
        keepers.append(int((tmp_path / "keeper").read_text()))

    yield make
    for keeper in keepers:
        os.kill(keeper, signal.SIGKILL)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Tmux]:
    with Tmux(tmp_path) as terminal:
        yield terminal


def start(terminal: Tmux, *arguments: str, term: str = "vt100") -> None:
    line = shlex.join([*KLEAK, "watch", "--interval", "0.5", *arguments])
    terminal.type(f"clear; stty -g > before; TERM={term} {line}")
    terminal.press("Enter")
    terminal.wait_for(r"^ BYTES +CHANGE")


def counts(number: int) -> str:
    return rf"^ +{number * 8} +\(\S+\) +{number} +\(\S+\) +\S+ +<?\d+s kmalloc +do_signalfd4"


def left_as_found(terminal: Tmux, tmp_path: Path, status: int) -> None:
    terminal.wait_for(r"^ready:$")
    terminal.type("echo left=$?; stty -g > after")
    terminal.press("Enter")
    terminal.wait_for(rf"^left={status}\n(.*\n)*ready:")
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text() != ""


def test_keys_and_picture(terminal: Tmux, keep: Keep, tmp_path: Path) -> None:
    start(terminal, *SCOPE)
    keep(BEFORE)
    terminal.wait_for(counts(BEFORE))
    assert "kleak watch: do_signalfd4, Linux" in terminal.screen()[0]

    # What is allocated between two key presses, exactly.
    terminal.press("m")
    terminal.wait_for(r"^mark 1 set")
    terminal.wait_for(r"^since mark 1, \S+ 0 objects, 0 B at 0 sites")
    keep(SINCE)
    terminal.wait_for(counts(SINCE))
    terminal.press("t")
    terminal.wait_for(counts(BEFORE + SINCE))
    terminal.wait_for(r"^since start")

    # Filter and order: one row is left, then all of them from A.
    terminal.press("/")
    terminal.type(CONTEXTS)
    terminal.wait_for(rf"^filter: {CONTEXTS}_")
    terminal.press("Enter")
    terminal.wait_for(rf"^sort: bytes; filter: {CONTEXTS} \(1 of \d+ sites\)")
    assert len(re.findall(r"\) +\d+ +\(", "\n".join(terminal.screen()))) == 1
    terminal.press("/", "C-u", "Enter")
    terminal.press("f")
    terminal.wait_for(r"^sort: function; filter: none")
    shown = terminal.screen()
    functions = [line[HEADER.index("SITE") :].split()[0] for line in shown[7:-1] if line.strip()]
    assert len(functions) > 1
    assert functions == sorted(functions)
    terminal.press("/")
    terminal.type("size>3")
    terminal.press("Enter")
    terminal.wait_for(r"^filter: no key size")

    # Frozen, the picture stays as it is.
    terminal.press("Space")
    terminal.wait_for(r"^FROZEN")
    frozen = terminal.screen()[:-1]
    keep(SINCE)
    time.sleep(1.5)  # three refreshes
    assert terminal.screen()[:-1] == frozen
    terminal.press("Space")
    terminal.wait_for(counts(BEFORE + 2 * SINCE))

    terminal.press("?")
    terminal.wait_for(r"^What is outstanding")
    terminal.press("x")

    # Stopped and taken up again, in another size.
    terminal.press("C-z")
    terminal.wait_for(r"Stopped(.*\n)*ready:")
    terminal.resize(100, 12)
    terminal.type("fg")
    terminal.press("Enter")
    terminal.wait_for(r"\Akleak watch:(.*\n)*\? help  q quit")  # not a picture half drawn
    assert len([line for line in terminal.screen() if line]) <= 12

    terminal.press("s")
    name = terminal.wait_for(r"^saved (\S+\.kleak)")[1]
    terminal.press("q")
    left_as_found(terminal, tmp_path, 0)

    result = subprocess.run(
        [*KLEAK, "report", name, "--format", "json"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    report = json.loads(result.stdout)
    (site,) = [s for s in report["sites"] if s["frames"][0]["symbol"] == "do_signalfd4"]
    assert [cycle["count"] for cycle in site["per_cycle"]] == [BEFORE, 2 * SINCE]
    assert report["cycles"] == 2


def test_terminal_that_can_do_nothing(terminal: Tmux, keep: Keep, tmp_path: Path) -> None:
    """Blocks below each other, without any control sequence; keys work, Ctrl-C ends it."""
    start(terminal, *SCOPE, "--sort", "count", term="dumb")
    keep(BEFORE)
    terminal.wait_for(counts(BEFORE))
    terminal.press("m")
    terminal.wait_for(r"^mark 1 set")
    terminal.press("C-c")
    left_as_found(terminal, tmp_path, 130)


def scrape(port: int, until: str) -> str:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                page = str(answer.read().decode())
        except OSError as error:
            page = str(error)
        if re.search(until, page, re.MULTILINE):
            return page
        assert time.monotonic() < give_up, page
        time.sleep(0.2)


def test_pipe_metrics_and_session(keep: Keep, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*KLEAK, "watch", *SCOPE, "--interval", "0.5", "--filter", CONTEXTS,
         "--prometheus", str(port), "-o", "end.kleak"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        scrape(port, "^kleak_sites")
        keep(PIPED)
        page = scrape(port, rf'^kleak_outstanding_objects{{.*function="do_signalfd4".* {PIPED}\.0$')
        assert re.search(
            rf'^kleak_outstanding_bytes{{.*function="do_signalfd4".* {PIPED * 8}\.0$',
            page,
            re.MULTILINE,
        )
        time.sleep(1)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "end.kleak" in err
    blocks = out.split("\n\n")
    assert len(blocks) > 3
    assert re.search(counts(PIPED), blocks[-2], re.MULTILINE)
    assert "\x1b" not in out
    report = subprocess.run(
        [*KLEAK, "report", "end.kleak"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "do_signalfd4+" in report.stdout


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        ([], "whole kernel"),
        (SCOPE, "do_signalfd4"),
        ([*SCOPE, "--own-calls"], "own calls of do_signalfd4"),
    ],
    ids=["everything", "function", "own calls"],
)
def test_count_of_refreshes_and_title(tmp_path: Path, scope: list[str], shown: str) -> None:
    result = subprocess.run(
        [*KLEAK, "watch", *scope, "--interval", "0.2", "--count", "3", "--rows", "2"],
        cwd=tmp_path, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert len(re.findall(rf"^kleak watch: {shown}, Linux", result.stdout, re.MULTILINE)) == 3
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--filter", "size>3"], 2, "kleak: filter: no key size"),
        (["--prometheus", "nowhere"], 2, "kleak: nowhere is no address"),
        (["--pid", "4194305"], 4, "kleak: there is no process 4194305"),
        (["-o", "no/such/place"], 2, "kleak: no/such/place: no directory "),
        (["-o", LOAD], 2, f"kleak: {LOAD} exists and is no session"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: list[str], status: int, says: str) -> None:
    result = subprocess.run(
        [*KLEAK, "watch", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == status
    assert result.stderr.splitlines()[-1].startswith(says)
    assert "Traceback" not in result.stderr


def test_process_ids_that_are_not_the_kernels(tmp_path: Path) -> None:
    result = subprocess.run(
        [*pid_namespaces.OWN_PROC, *KLEAK, "watch", *SCOPE, "--pid", "1", "--count", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 3
    assert result.stdout == ""
    (said,) = result.stderr.splitlines()
    assert said.startswith("kleak: --pid 1: in a pid namespace")
