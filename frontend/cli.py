"""The command line: the list of commands, and where errors become one line and a status."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from types import FrameType
from typing import Any

import click
from click.shell_completion import CompletionItem

import kleak
from kleak.errors import ClosedPipeError, ExitStatus, KleakError
from kleak.files.names import readable
from kleak.files.private_place import private_place
from kleak.render.escape import printable

COMMANDS = {
    "module": "Load and unload a module again and again, and find what it leaks.",
    "run": "Run a command, and find what the kernel allocated for it and did not free.",
    "watch": "Show what the running kernel allocates and has not freed, live.",
    "doctor": "Say what this machine can do, what that means, and what mends it.",
    "report": "Show saved sessions, in many formats.",
    "diff": "Compare two reports: which leaks are new, gone, or leak more or less.",
    "vm": "Run any command of kleak in a throwaway virtual machine.",
    "image": "Compile kleak's programs for another machine.",
    "triage": "One look: where kernel memory stands, what is abnormal, whom to ask next.",
    "collect": "Save a snapshot of every memory report that this kernel offers.",
    "analyze": "Find leaks in snapshots of kleak collect, or in bare report files.",
    "explain": "What the fields of a report of the kernel mean, by version.",
    "completion": "Print the completion script of a shell.",
}
"""Every command, in the order of the list, with its line there. The command NAME is the function
NAME of kleak.commands.NAME; everything else (help, completion) takes it from here."""


class LazyGroup(click.Group):
    """Imports a command when it is used, and none to list them: imports take 5 s in an emulated
    machine.
    """

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Read the options before the command; --help and --version print here."""
        with _closed_pipe_told():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _closed_pipe_told():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of COMMANDS, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command ``cmd_name``; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"kleak.commands.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        command.short_help = COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands of ``kleak --help``."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands, or the options, that begin with ``incomplete``."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name]) for name in names] + options


@contextmanager
def _closed_pipe_told() -> Iterator[None]:
    """Turn EPIPE into an error with a status of its own: click makes 1 of it, "leak found"."""
    try:
        yield
    except BrokenPipeError as error:
        raise ClosedPipeError from error


@dataclass
class _Options:
    """What the options before the command say."""

    debug: bool = False


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: sudo kleak module ./leaky.ko --cycles 5",
)
@click.version_option(kleak.__version__)
@click.option("--debug", is_flag=True, help="Show a traceback where an error ends the command.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Find which code path of a kernel module allocates memory and never gives it back.

    Exit status: that of the command, which its own help tells; 130 if it was interrupted, 141 if
    the reader of its output went away (kleak ... | head), 70 for a defect of kleak.
    """
    context.ensure_object(_Options).debug = debug


def main() -> None:
    """Run kleak with the arguments of the process, and leave it with its exit status."""
    _open_closed_streams()
    # Both end a command the way Ctrl-C does: with everything put back. What the caller ignores
    # (nohup) stays ignored, here and in what kleak starts: only handlers are reset by exec.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    # Of all temporary files, those of libraries too: sudo may hand on a stranger's TMPDIR.
    tempfile.tempdir = private_place()
    options = _Options()
    try:
        status = cli.main(prog_name="kleak", standalone_mode=False, obj=options)
    except (KeyboardInterrupt, Exception) as error:
        status = _status_of(error)
        with suppress(OSError):  # of a standard error that is closed too
            if options.debug:
                for line in "".join(traceback.format_exception(error)).splitlines():
                    click.echo(printable(line), err=True)
            _tell(error)
    _flush()
    sys.exit(int(status or 0))


def _status_of(error: BaseException) -> int:
    """Return the exit status of a command that ``error`` ended."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, KleakError):
        return error.exit_status
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return ExitStatus.INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return ExitStatus.CLOSED_PIPE
    if isinstance(error, OSError):
        return ExitStatus.UNSUPPORTED
    return ExitStatus.INTERNAL


def _tell(error: BaseException) -> None:
    """Say in one line what ended the command; nothing where nobody reads on (kleak ... | head).

    Names of files, and what strangers wrote in them, are part of it: nothing reaches the terminal
    that would act there.
    """
    if isinstance(error, click.ClickException):
        vars(error)["message"] = printable(error.message)
        error.show()
    elif isinstance(error, (ClosedPipeError, BrokenPipeError)):
        pass
    else:
        click.echo(f"kleak: {printable(_line_of(error))}", err=True)


def _line_of(error: BaseException) -> str:
    if isinstance(error, KleakError):
        return readable(str(error))
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted"
    if isinstance(error, OSError):
        return f"{readable(str(error.filename or 'system'))}: {error.strerror or error}"
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{what} (a defect of kleak: 'kleak --debug COMMAND ...' shows where, please report it)"


def _open_closed_streams() -> None:
    """Open what the caller has closed (``>&-``), and Python gives as None: nothing is read or kept.

    Else a file that kleak opens gets the number of a standard stream, and what is printed. As
    Python opens them, commands that kleak starts find them closed, as its caller wanted.
    """
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == number  # the lowest that is free
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _flush() -> None:
    """Flush what is written by now: Python would try as it leaves, and make 120 of a closed pipe.

    What a closed pipe did not take stays in the buffer, so the pipe is replaced.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
