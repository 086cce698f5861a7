"""The command line as a whole: errors become one line and a status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig

import click
import pytest
from click.testing import CliRunner

from kleak.cli import COMMANDS, cli
from tests.support.paths import TOP

SAMPLE = str(TOP / "tests/data/sessions/v1/6.12--leaky.kleak")

BREAK = (
    "import sys, kleak.commands.explain as broken\n"
    "def fail(*_, **__): raise {error}\n"
    "broken.explain.callback = fail\n"
    "from kleak.cli import main\n"
    "sys.argv = ['kleak', *sys.argv[1:]]\n"
    "main()"
)


def kleak(*arguments: str, error: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BREAK.format(error=error), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        ("ValueError('odd')", 70, "kleak: ValueError: odd (a defect of kleak: 'kleak --debug "
         "COMMAND ...' shows where, please report it)"),
        ("OSError(2, 'No such file or directory', 'x')", 3, "kleak: x: No such file or directory"),
        ("KeyboardInterrupt", 130, "kleak: interrupted"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(error: str, status: int, line: str) -> None:
    result = kleak("explain", error=error)
    assert (result.returncode, result.stderr.lstrip("\n")) == (status, line + "\n")


@pytest.mark.parametrize(
    ("error", "status", "last"),
    [
        ("ValueError('odd')", 70, "kleak: ValueError: odd (a defect"),
        ("__import__('kleak.errors').errors.UnsupportedError('no')", 3, "kleak: no"),
        ("KeyboardInterrupt", 130, "kleak: interrupted"),
    ],
)
def test_debug_shows_the_traceback_and_changes_no_status(error, status, last):
    result = kleak("--debug", "explain", error=error)
    assert "Traceback (most recent call last)" in result.stderr
    assert "in fail" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(last)
    assert result.returncode == status


@pytest.mark.parametrize("closed", ["stdout", "both"])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["report", SAMPLE], 141),
        (["report", SAMPLE, "--format", "pprof"], 141),
        (["diff", SAMPLE, SAMPLE], 141),
        (["explain"], 141),
        (["completion", "bash"], 141),
        (["--version"], 141),
        (["report", "--help"], 141),
        (["report", "no such file"], 2),
    ],
)
def test_a_reader_that_went_away_is_no_verdict(arguments, status, closed):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "kleak", *arguments],
        stdout=writer, stderr=writer if closed == "both" else subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == status
    if status == 141:
        assert not done.stderr


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["report", SAMPLE], 1),
        (["report", SAMPLE, "--format", "pprof"], 1),
        (["doctor"], None),
        (["--version"], 0),
        (["report", "no such file"], 2),
    ],
)
def test_closed_streams_are_nobody_who_reads(arguments, status, closed):
    """And what kleak opens does not take their place."""

    def call(streams):
        return subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {" ".join(f"{n}>&-" for n in streams)}', "sh",
             sys.executable, "-m", "kleak", *arguments],
            capture_output=True, check=False,
        )  # fmt: skip

    whole, done = call(()), call(closed)
    assert done.returncode == (whole.returncode if status is None else status)
    assert done.stdout == (b"" if 1 in closed else whole.stdout)
    assert done.stderr == (b"" if 2 in closed else whole.stderr)


@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_the_caller_ignores_ends_nothing(number, ignored):
    fail = f"__import__('os').kill(__import__('os').getpid(), {int(number)}) or ValueError('odd')"
    before = signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        result = kleak("explain", error=fail)
    finally:
        signal.signal(number, before)
    assert result.returncode == (70 if ignored else 130)


@pytest.mark.parametrize("command", ["run", "vm"])
def test_a_misspelled_option_is_no_command(command):
    wrong, right = {"run": ("--scpoe", "--scope"), "vm": ("--kernl", "--kernel")}[command]
    result = CliRunner().invoke(cli, [command, wrong, "x", "--", "true"])
    assert result.exit_code == 2
    assert re.search(rf"No such option:? '?{wrong}'?. .*Did you mean .*{right}", result.output)


def float_options():
    context = click.Context(cli)
    for name in COMMANDS:
        for option in cli.get_command(context, name).params:
            if isinstance(option.type, (click.FloatRange, click.types.FloatParamType)):
                yield name, option.opts[0]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_no_option_takes_what_is_no_number(value):
    found = list(float_options())
    assert {("watch", "--interval"), ("run", "--tree-timeout"), ("vm", "--timeout")} <= set(found)
    for command, option in found:
        result = CliRunner().invoke(cli, [command, option, value, "x"])
        assert result.exit_code == 2, (command, option)
        assert f"Invalid value for '{option}'" in result.output


def test_a_field_is_found_whatever_its_case_and_report():
    for words in (["slab"], ["Meminfo", "SLAB"], ["meminfo", "slab"]):
        result = CliRunner().invoke(cli, ["explain", *words])
        assert result.exit_code == 0
        assert "Slab\n    SReclaimable and SUnreclaim together" in result.output
    result = CliRunner().invoke(cli, ["explain", "lab"], standalone_mode=False)
    assert "no report lab" in str(result.exception)


@pytest.mark.parametrize("columns", [100, 120, 160])
def test_a_diff_is_as_wide_as_the_terminal(columns):
    older = SAMPLE.replace("6.12--leaky", "6.1--leaky")
    result = CliRunner().invoke(
        cli, ["diff", older, SAMPLE, "--verbose"], env={"COLUMNS": str(columns)}
    )
    widths = [len(line) for line in result.output.splitlines()]
    assert max(widths) <= columns
    assert "forget_rings [leaky] <- buffers_create" in " ".join(result.output.split())


@pytest.mark.parametrize("command", ["run", "module"])
def test_what_a_capture_does_to_the_machine_is_in_its_help(command):
    shown = " ".join(CliRunner().invoke(cli, [command, "--help"]).output.split())
    assert "are dropped on the whole machine (drop_caches=2)" in shown


def imported_by(*arguments: str) -> set[str]:
    """Return the modules that kleak has imported when it ends."""
    code = (
        "import sys, atexit, json\n"
        "atexit.register(lambda: json.dump(sorted(sys.modules), sys.stderr))\n"
        "from kleak.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr))


def test_the_list_of_commands_needs_none_of_them():
    imported = imported_by("--help")
    assert not [name for name in imported if name.startswith("kleak.commands.")]
    assert imported.isdisjoint({"jinja2", "elftools", "tabulate", "bcc", "sqlite3"})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_imports_no_other(command):
    imported = imported_by(command, "--help")
    commands = {f"kleak.commands.{name}" for name in COMMANDS}
    assert imported & commands == {f"kleak.commands.{command}"}
    assert "bcc" not in imported
    shown = CliRunner().invoke(cli, [command, "--help"], prog_name="kleak").output
    assert re.search(rf"^  Example: .*\bkleak {command}\b", shown, re.MULTILINE), shown


def test_every_module_with_a_command_is_in_the_list():
    files = (TOP / "frontend/commands").glob("*.py")
    shown = (
        path.stem for path in files if re.search(r"@click.(command|group)\(", path.read_text())
    )
    assert set(COMMANDS) == set(shown)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_its_line_in_one_place(command):
    assert len(COMMANDS[command]) <= 80
    source = (TOP / f"frontend/commands/{command}.py").read_text()
    assert "short_help" not in source


def test_a_checkout_runs_without_being_installed(tmp_path):
    """With the dependencies of this environment, but not its kleak: no .pth file is read."""
    libraries = sysconfig.get_path("purelib")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": libraries, "HOME": str(tmp_path)}
    sample = TOP / "tests/data/sessions/v1/6.12--leaky.kleak"

    def call(*arguments):
        return subprocess.run(
            ["/usr/bin/python3", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert "No module named" in call("-c", "import kleak").stderr
    shown = call(str(TOP / "frontend"), "report", str(sample), "--format", "html")
    assert (shown.returncode, shown.stderr) == (1, "")
    assert "forget_rings" in shown.stdout
    assert call(str(TOP / "frontend"), "collect", "--script").stdout.startswith("#!/bin/sh")
