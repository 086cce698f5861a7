"""``kleak run``: bracket a command."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

from kleak.analysis.judge import judge
from kleak.capture.engine.declared import MAX_GENERATIONS
from kleak.capture.lifecycle import Tracing
from kleak.capture.machine.settings import require_root
from kleak.capture.run import CommandRun, trace_command
from kleak.capture.scope import NamedScope
from kleak.capture.target.processes import CommandFailedError
from kleak.commands.options.option_group import option_group
from kleak.commands.options.output import OutputOptions, output_options
from kleak.commands.options.scope import scope_options, stacks_option
from kleak.commands.options.seconds import Seconds
from kleak.commands.options.session import SessionOptions, session_options
from kleak.commands.options.tracer import EndOptions, TracerOptions, end_options, tracer_options
from kleak.progress import make_progress


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How the command is run. ``tree_timeout`` is in seconds."""

    by_process: bool
    tree_timeout: float
    repeat: int


run_options = option_group(
    "running",
    RunOptions,
    click.option(
        "--by-process",
        is_flag=True,
        help="Only what the command's own processes allocate counts.",
    ),
    click.option(
        "--tree-timeout",
        metavar="SECONDS",
        type=Seconds(0),
        default=10.0,
        show_default=True,
        help="How long to wait for the command's children, once it has ended itself.",
    ),
    click.option(
        "--repeat",
        type=click.IntRange(1, MAX_GENERATIONS - 1),
        default=1,
        show_default=True,
        help="Run it so often. Growth needs 3 runs to be judged.",
    ),
)


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Example: sudo kleak run --by-process --repeat 3 -- ./exercise-pipes",
)
@scope_options
@run_options
@stacks_option
@tracer_options()
@end_options
@session_options()
@output_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    command: tuple[str, ...],
    scope: NamedScope,
    running: RunOptions,
    walk_every: int,
    tracer: TracerOptions,
    at_end: EndOptions,
    session: SessionOptions,
    output: OutputOptions,
) -> int:
    """Find what the kernel allocates while COMMAND runs, and does not free after it.

    The command's input, output and signals are its own: the report goes to standard error. So is
    its exit status, where it fails (128 and the number of the signal that ended it: 143 where
    kleak, and so the command, gets SIGTERM).

    Before the first run and after each one, dentries and inodes that nothing uses are dropped on
    the whole machine (drop_caches=2), so that they do not look like leaks: what comes next looks
    them up again.

    Exit status: that of the command where it fails. Else 0 nothing found, 1 a leak found (see
    --fail-on), 2 usage, 3 this machine cannot, 4 a module of --module is not loaded, 5 incomplete
    with --strict, 130 interrupted while the command does not run.
    """
    require_root()
    reporting = output.prepare(table_to=sys.stderr, session=session.path)
    progress = make_progress()
    command_run = CommandRun(
        command,
        scope,
        running.by_process,
        running.repeat,
        running.tree_timeout,
        Tracing(
            tracer.kernel_headers,
            tracer.limits,
            session.keep,
            kmemleak=not at_end.no_kmemleak,
            pointer_seconds=at_end.search_seconds,
            walk_every=walk_every,
        ),
    )
    with session.saved(scope.target.name) as session_file:
        try:
            outcome = trace_command(command_run, progress, session_file)
        finally:
            progress.done()
    status = reporting.write(judge(outcome.session))
    if isinstance(outcome.failure, CommandFailedError):
        click.echo(f"kleak: {outcome.failure}", err=True)
        return outcome.failure.status
    if outcome.failure is not None:
        raise outcome.failure
    return status
