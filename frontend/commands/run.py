"""``kleak run``: bracket a command."""

from __future__ import annotations

import click

from kleak.analysis.judge import judge
from kleak.capture.machine import require_root
from kleak.capture.run_session import CommandRun, trace_command
from kleak.commands.output import (
    make_limits,
    make_output,
    output_options,
    saved_session,
    session_options,
    tracer_options,
)
from kleak.progress import make_progress


@click.command(
    short_help="Run a command, and find what kernel functions allocated and did not free.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: sudo kleak run --scope 'pipe_*' --repeat 3 -- ./exercise-pipes",
)
@click.option(
    "--scope",
    metavar="GLOB",
    multiple=True,
    required=True,
    help="Kernel functions that count, where they are on the stack of an allocation. "
    "May be given several times; '*' is the whole kernel.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Run it so often. Growth needs 3 runs to be judged.",
)
@tracer_options
@session_options
@output_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    command: tuple[str, ...],
    scope: tuple[str, ...],
    repeat: int,
    max_outstanding: int,
    max_stacks: int,
    kernel_headers: str | None,
    output: str | None,
    keep: int,
    json: str | None,
    verbose: bool,
    fail_on: str,
    strict: bool,
) -> int:
    """Find what kernel functions allocate for COMMAND and do not free after it.

    The command's output and signals are its own. Exit status: as that of kleak module.
    """
    require_root()
    reporting = make_output(json, verbose, fail_on, strict)
    progress = make_progress()
    limits = make_limits(max_outstanding, max_stacks)
    with saved_session(output, ",".join(scope)) as session_file:
        try:
            session, failure = trace_command(
                CommandRun(command, scope, repeat, kernel_headers, limits, keep),
                progress,
                session_file,
            )
        finally:
            progress.done()
    status = reporting.write(judge(session))
    if failure is not None:
        raise failure
    return status
