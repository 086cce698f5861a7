"""``kleak module``: the main job."""

from __future__ import annotations

import click

from kleak.analysis.judge import judge
from kleak.capture.engine.declared import MAX_LOADS
from kleak.capture.follow import FollowRun, follow_module
from kleak.capture.lifecycle import Tracing
from kleak.capture.machine.settings import require_root
from kleak.capture.module import MAX_MODULES, ModuleRun, trace_module
from kleak.capture.target.exercises import Exercise, net_exercise, shell_exercise
from kleak.capture.target.modules import ModuleTarget, Timeouts, find_target
from kleak.capture.target.net_plan import read_plan
from kleak.capture.target.netlink import check_needs
from kleak.commands.output import (
    kmemleak_option,
    make_limits,
    make_output,
    output_options,
    saved_session,
    session_options,
    tracer_options,
)
from kleak.commands.seconds import Seconds
from kleak.errors import ExitStatus, UsageError
from kleak.progress import make_progress

DEFAULT_CYCLES = 5


@click.command(
    epilog="Example: sudo kleak module ./leaky.ko debug=1 --cycles 5 --exercise 'cat /dev/leaky'",
)
@click.argument("target", metavar="MODULE", type=click.Path())
@click.argument("parameters", metavar="[NAME=VALUE]...", nargs=-1)
@click.option(
    "--module",
    "others",
    metavar="MODULE",
    type=click.Path(),
    multiple=True,
    help="Another module that counts, loaded after the first. May be given several times.",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Load nothing: watch while somebody else loads and unloads it. Ends with the report at "
    "Ctrl-C, or after --cycles or --timeout.",
)
@click.option(
    "--cycles",
    type=click.IntRange(1, MAX_LOADS),
    help="How often to load, exercise and unload; with --follow, how many such pairs of any of "
    f"the modules to wait for. Growth needs 3 to be judged. [default: {DEFAULT_CYCLES}; with "
    "--follow no limit]",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=Seconds(0, min_open=True),
    help="With --follow: report after so long at the latest.",
)
@click.option(
    "--exercise", metavar="CMD", help="Shell command to run in each cycle while it is loaded."
)
@click.option(
    "--exercise-net",
    "net_plans",
    metavar="PLAN",
    type=click.Path(),
    multiple=True,
    help="What to do with network devices in each cycle, in private namespaces: a .toml file, or "
    "steps such as 'link add kind vxlan vxlan_id 42; link set kleak0 up'. May be given several "
    "times; comes before --exercise.",
)
@click.option(
    "--init-may-fail",
    is_flag=True,
    help="A load whose init fails is a cycle too: for leaks on error paths.",
)
@click.option("--load-timeout", type=Seconds(0, min_open=True), default=60.0, show_default=True)
@click.option("--unload-timeout", type=Seconds(0, min_open=True), default=30.0, show_default=True)
@tracer_options
@kmemleak_option
@session_options
@output_options
def module(
    target: str,
    parameters: tuple[str, ...],
    others: tuple[str, ...],
    follow: bool,
    cycles: int | None,
    timeout: float | None,
    exercise: str | None,
    net_plans: tuple[str, ...],
    init_may_fail: bool,
    load_timeout: float,
    unload_timeout: float,
    max_outstanding: int,
    max_stacks: int,
    kernel_headers: str | None,
    no_kmemleak: bool,
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
    modprobe does. It must not be loaded; it is not loaded afterwards. With --follow it is left to
    others altogether.

    Before the first cycle and after each one (with --follow: at the beginning and the end),
    dentries and inodes that nothing uses are dropped on the whole machine (drop_caches=2), so that
    they do not look like leaks: what comes next looks them up again.

    Exit status: 0 nothing found, 1 a leak found (see --fail-on), 2 usage, 3 this machine
    cannot, 4 the module failed, 5 incomplete with --strict, 130 interrupted.
    """
    require_root()
    _check_mode(
        follow,
        driving={
            "a module parameter": parameters,
            "--exercise": exercise,
            "--exercise-net": net_plans,
            "--init-may-fail": init_may_fail,
        },
        timeout=timeout,
    )
    reads = (target, *others, *net_plans)
    reporting = make_output(
        json, verbose, fail_on, strict, exact=exact, session=output, reads=reads
    )
    targets = _find_targets((target, *others), parameters, may_be_loaded=follow)
    exercises = _find_exercises(exercise, net_plans)
    limits = make_limits(max_outstanding, max_stacks)
    tracing = Tracing(kernel_headers, limits, keep, kmemleak=not no_kmemleak)
    progress = make_progress()
    with saved_session(output, "-".join(found.name for found in targets)) as session_file:
        try:
            if follow:
                outcome = follow_module(
                    FollowRun(targets, cycles, timeout, tracing), progress, session_file, _say_ready
                )
            else:
                run = ModuleRun(
                    targets,
                    cycles or DEFAULT_CYCLES,
                    exercises,
                    init_may_fail,
                    Timeouts(load=load_timeout, unload=unload_timeout),
                    tracing,
                )
                outcome = trace_module(run, progress, session_file)
        finally:
            progress.done()
    status = ExitStatus.CLEAN
    if outcome.failure is None or outcome.session.cycles:
        status = reporting.write(judge(outcome.session))
    if outcome.failure is not None:
        raise outcome.failure
    return status


def _check_mode(follow: bool, *, driving: dict[str, object], timeout: float | None) -> None:
    if not follow and timeout is not None:
        raise UsageError("--timeout belongs to --follow")
    for option, value in driving.items():
        if follow and value:
            raise UsageError(f"{option} makes no sense with --follow, which loads nothing itself")


def _find_targets(
    specs: tuple[str, ...], parameters: tuple[str, ...], *, may_be_loaded: bool
) -> tuple[ModuleTarget, ...]:
    if len(specs) > MAX_MODULES:
        raise UsageError(f"{len(specs)} modules at once; {MAX_MODULES} at most")
    targets = tuple(
        find_target(spec, () if number else parameters, may_be_loaded=may_be_loaded)
        for number, spec in enumerate(specs)
    )
    names = [found.name for found in targets]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"module {name} is named twice")
    return targets


def _find_exercises(command: str | None, net_plans: tuple[str, ...]) -> tuple[Exercise, ...]:
    found = []
    for plan in map(read_plan, net_plans):
        check_needs(plan)
        found.append(net_exercise(plan))
    if command is not None:
        found.append(shell_exercise(command))
    return tuple(found)


def _say_ready(names: str) -> None:
    click.echo(f"following {names}; Ctrl-C ends it with the report", err=True)
