"""``kleak vm``: any kleak command in a throwaway virtual machine."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import click

from kleak.commands.options.seconds import Seconds
from kleak.commands.vm_failures import (
    fails_calls,
    left,
    note_death,
    report_session,
    resumed,
    with_session,
)
from kleak.errors import TargetError, UsageError
from kleak.files.output_files import found_place
from kleak.vm.boot import Result, boot, kvm_works
from kleak.vm.inner import inner_command
from kleak.vm.kernels import find_kernel, release_of

CONSOLE_LINES_SHOWN = 20
OUTPUT_OPTIONS = ("--json", "--ktap", "--output", "-o")
"""Options of kleak's commands that name a file to write; its directory is shared with the guest."""


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Example: kleak vm --kernel 6.12 -- module ./leaky.ko --cycles 5",
)
@click.option(
    "--kernel",
    metavar="IMAGE|RELEASE",
    type=click.Path(),
    help="Kernel to boot; the newest if not given.",
)
@click.option("--memory", default="2G", show_default=True, help="Memory of the guest.")
@click.option("--cpus", default=2, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    default=1800.0,
    show_default=True,
    type=Seconds(1),
    help="Kill the guest after this time, boot included.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def vm(
    kernel: str | None, memory: str, cpus: int, timeout_s: float, command: tuple[str, ...]
) -> None:
    """Run a kleak COMMAND in a throwaway virtual machine, as root.

    The guest sees this machine's files. It can write those of the current directory and of the
    directories that --json, --ktap and -o name; what it writes elsewhere is gone when it ends.
    The exit status is the command's.
    """
    if re.fullmatch(r"[1-9][0-9]*[MG]", memory) is None:
        raise UsageError(f"--memory {memory}: give a number and M or G, such as 2G")
    image = find_kernel(kernel)
    kvm = kvm_works(image)
    if sys.stderr.isatty():
        how = "with KVM" if kvm else "emulated"
        click.echo(f"booting {release_of(image)} ({how})", err=True)

    def run(words: tuple[str, ...], stdout: Callable[[bytes], object]) -> Result:
        return boot(
            image,
            inner_command(words),
            rw_dirs=writable_directories(words),
            timeout_s=timeout_s,
            memory=memory,
            cpus=cpus,
            kvm=kvm,
            terminals=_terminals(),
            stdout=stdout,
            stderr=_write_stderr,
        )

    result = _run_failures(command, run) if fails_calls(command) else run(command, _write_stdout)
    if result.status is None:
        for line in result.console_tail[-CONSOLE_LINES_SHOWN:]:
            click.echo(f"  console: {line}", err=True)
        raise TargetError(str(result.failure))
    raise SystemExit(result.status)


def _run_failures(
    command: tuple[str, ...], run: Callable[[tuple[str, ...], Callable[[bytes], object]], Result]
) -> Result:
    """Run it in as many guests as it takes; show the report of the last one."""
    command, session = with_session(command)
    words = command
    while True:
        report = bytearray()
        result = run(words, report.extend)
        died = result.status is None and note_death(
            session, result.console_tail, str(result.failure)
        )
        faults = left(session)
        if faults is None or (result.status is None and not died):
            break
        click.echo(
            f"a failure ended this guest; left to try in a fresh one: {len(faults.left)}", err=True
        )
        words = resumed(command, session)
    _write_stdout(bytes(report))
    if died:  # in the last failure of all: no guest is left to report
        return Result(int(report_session(session)), None, b"", b"", ())
    return result


def writable_directories(command: Sequence[str]) -> list[Path]:
    """Return the directories that ``command`` may write: the current one and its outputs'."""
    directories = [Path.cwd()]
    for index, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name not in OUTPUT_OPTIONS:
            continue
        if not equals:
            value = command[index + 1] if index + 1 < len(command) else ""
        if value not in ("", "-"):
            # Both that of a link, and that of the file which it leads to.
            parents = [Path(value).absolute().parent]
            with suppress(UsageError), found_place(value) as place:  # the command tells of it
                parents = [*parents, place.path.parent] if place.is_file else []
            directories += dict.fromkeys(parents)
    return directories


def _terminals() -> dict[str, tuple[int, int]]:
    terminals = {}
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if stream.isatty():
            size = os.get_terminal_size(stream.fileno())
            terminals[name] = (size.lines, size.columns)
    return terminals


def _write_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _write_stderr(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
