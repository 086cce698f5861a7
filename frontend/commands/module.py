"""``kleak module``: the main job."""

from __future__ import annotations

import click

from kleak.analysis.judge import judge
from kleak.capture.machine import require_root
from kleak.capture.module_session import ModuleRun, trace_module
from kleak.capture.modules import Timeouts, find_target
from kleak.commands.output import (
    make_limits,
    make_output,
    output_options,
    saved_session,
    session_options,
    tracer_options,
)
from kleak.errors import ExitStatus
from kleak.progress import make_progress


@click.command(
    epilog="Example: sudo kleak module ./leaky.ko debug=1 --cycles 5 --exercise 'cat /dev/leaky'",
)
@click.argument("target", metavar="MODULE", type=click.Path())
@click.argument("parameters", metavar="[NAME=VALUE]...", nargs=-1)
@click.option(
    "--cycles",
    type=click.IntRange(1, 4096),
    default=5,
    show_default=True,
    help="How often to load, exercise and unload. Growth needs 3 to be judged.",
)
@click.option(
    "--exercise", metavar="CMD", help="Shell command to run in each cycle while it is loaded."
)
@click.option(
    "--init-may-fail",
    is_flag=True,
    help="A load whose init fails is a cycle too: for leaks on error paths.",
)
@click.option(
    "--load-timeout", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True
)
@click.option(
    "--unload-timeout", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True
)
@tracer_options
@session_options
@output_options
def module(
    target: str,
    parameters: tuple[str, ...],
    cycles: int,
    exercise: str | None,
    init_may_fail: bool,
    load_timeout: float,
    unload_timeout: float,
    max_outstanding: int,
    max_stacks: int,
    kernel_headers: str | None,
    output: str | None,
    keep: int,
    json: str | None,
    verbose: bool,
    exact: bool,
    fail_on: str,
    strict: bool,
) -> int:
    """Find what a kernel module allocates and never frees.

    MODULE is the path of a .ko file, loaded as insmod does, or the name of a module, loaded as
    modprobe does. It must not be loaded; it is not loaded afterwards.

    Exit status: 0 nothing found, 1 a leak found (see --fail-on), 2 usage, 3 this machine
    cannot, 4 the module failed, 5 incomplete with --strict, 130 interrupted.
    """
    require_root()
    reporting = make_output(json, verbose, fail_on, strict, exact=exact)
    run = ModuleRun(
        find_target(target, parameters),
        cycles,
        exercise,
        init_may_fail,
        kernel_headers,
        make_limits(max_outstanding, max_stacks),
        Timeouts(load=load_timeout, unload=unload_timeout),
        keep,
    )
    progress = make_progress()
    with saved_session(output, run.target.name) as session_file:
        try:
            outcome = trace_module(run, progress, session_file)
        finally:
            progress.done()
    status = ExitStatus.CLEAN
    if outcome.failure is None or outcome.session.cycles:
        status = reporting.write(judge(outcome.session))
    if outcome.failure is not None:
        raise outcome.failure
    return status
