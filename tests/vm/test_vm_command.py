"""``kleak vm`` on a real guest: what comes back, a panic, the time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kleak.commands import vm as command
from kleak.errors import ExitStatus, TargetError, UsageError
from kleak.vm.kernels import find_kernel

KERNEL = "6.12"


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for temporary files that only this test uses, so what is left in it is seen."""
    directory = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def run(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    """Run ``kleak vm`` with a shell script in the place of the kleak command."""
    try:
        find_kernel(KERNEL)
    except UsageError as error:
        pytest.skip(f"{error}: run 'make setup'")
    monkeypatch.chdir(tmp_path)

    def run_vm(script: str, *options: str, words: tuple[str, ...] = ("x",)) -> None:
        monkeypatch.setattr(
            command, "inner_command", lambda words: ["sh", "-c", script, "sh", *words]
        )
        command.vm.main(["--kernel", KERNEL, *options, "--", *words], standalone_mode=False)

    return run_vm


def emulators(scratch: Path) -> list[str]:
    """Return the command lines of the virtual machines with a directory under ``scratch``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if os.fsencode(scratch) in line:
            found.append(line.replace(b"\0", b" ").decode())
    return found


def test_status_streams_arguments_and_files_come_back(
    run, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path_factory.mktemp("other")
    script = (
        'printf "%s|" "$@"; echo complaint >&2; pwd >where; echo {} >"$2"; '
        "head -c 300000 /dev/zero | tr '\\0' x; exit 5"
    )
    words = ("--json", f"{other}/report.json", "a b", "$HOME", "'\"`", "*")
    with pytest.raises(SystemExit) as ended:
        run(script, words=words)
    assert ended.value.code == 5
    stdout, stderr = capfd.readouterr()
    assert stdout == "|".join(words) + "|" + 300000 * "x"
    assert stderr == "complaint\n"
    assert Path("where").read_text() == f"{Path.cwd()}\n"
    assert (other / "report.json").read_text() == "{}\n"


def test_a_panic_is_an_error_with_the_end_of_the_console(
    run, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TargetError, match="panicked: sysrq triggered crash") as error:
        run("echo reached; echo kept > kept; sync; echo c > /proc/sysrq-trigger; sleep 100")
    assert error.value.exit_status == ExitStatus.TARGET_FAILED
    stdout, stderr = capfd.readouterr()
    assert stdout == "reached\n"
    assert Path("kept").read_text() == "kept\n"
    lines = stderr.splitlines()
    assert len(lines) == command.CONSOLE_LINES_SHOWN
    assert all(line.startswith("  console: ") for line in lines)
    assert "RIP: 0033:" in stderr  # of the shell that wrote to sysrq-trigger


def test_the_time_limit_kills_the_guest_and_leaves_nothing(run, scratch: Path) -> None:
    with pytest.raises(TargetError, match="killed at the time limit of 5 s"):
        run("sleep 1000", "--timeout", "5")
    assert emulators(scratch) == []
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_kills_the_guest_and_leaves_nothing(
    run, scratch: Path, number: signal.Signals
) -> None:
    words = [sys.executable, "-m", "kleak", "vm", "--kernel", KERNEL, "--", "--version"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        try:
            for _ in range(300):
                if any(line.startswith("qemu") or "/qemu" in line for line in emulators(scratch)):
                    break
                time.sleep(0.1)
            else:
                pytest.fail("no virtual machine was started within 30 s")
            process.send_signal(number)
            assert process.wait(30) == ExitStatus.INTERRUPTED
        finally:
            process.kill()
    assert emulators(scratch) == []
    assert list(scratch.iterdir()) == []
