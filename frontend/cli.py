"""The command line: the list of commands, and where errors become one line and a status."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from types import FrameType

import click

from kleak.commands.analyze import analyze
from kleak.commands.collect import collect
from kleak.commands.doctor import doctor
from kleak.commands.explain import explain
from kleak.commands.module import module
from kleak.commands.report import report
from kleak.commands.run import run
from kleak.commands.triage import triage
from kleak.commands.vm import vm
from kleak.commands.watch import watch
from kleak.errors import ExitStatus, KleakError

COMMANDS = (module, run, watch, doctor, report, vm, triage, collect, analyze, explain)


class _Group(click.Group):
    """Lists its commands in the order of COMMANDS, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@dataclass
class _Options:
    """What the options before the command say."""

    debug: bool = False


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: sudo kleak module ./leaky.ko --cycles 5",
)
@click.version_option(package_name="kleak")
@click.option("--debug", is_flag=True, help="Show a traceback where an error ends the command.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Find which code path of a kernel module allocates memory and never gives it back."""
    context.ensure_object(_Options).debug = debug


for _command in COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Run kleak with the arguments of the process, and leave it with its exit status."""
    # Both end a command the way Ctrl-C does: with everything put back.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    options = _Options()
    try:
        status = cli.main(standalone_mode=False, obj=options)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except KleakError as error:
        if options.debug:
            raise
        click.echo(f"kleak: {error}", err=True)
        status = error.exit_status
    except (KeyboardInterrupt, click.Abort):
        click.echo("kleak: interrupted", err=True)
        status = ExitStatus.INTERRUPTED
    except BrokenPipeError:
        # The reader went away (kleak ... | head). Python would try again as it leaves.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = ExitStatus.INTERRUPTED
    except OSError as error:
        if options.debug:
            raise
        click.echo(f"kleak: {error.filename or 'system'}: {error.strerror or error}", err=True)
        status = ExitStatus.UNSUPPORTED
    except Exception as error:
        if options.debug:
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        click.echo(
            f"kleak: {what} (a defect of kleak: --debug shows where, please report it)", err=True
        )
        status = ExitStatus.INTERNAL
    sys.exit(int(status or 0))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
