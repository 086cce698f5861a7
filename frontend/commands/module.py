"""``kleak module``: the main job."""

from __future__ import annotations

from dataclasses import dataclass

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
from kleak.commands.options.option_group import option_group
from kleak.commands.options.output import OutputOptions, output_options
from kleak.commands.options.seconds import Seconds
from kleak.commands.options.session import SessionOptions, session_options
from kleak.commands.options.tracer import EndOptions, TracerOptions, end_options, tracer_options
from kleak.errors import ExitStatus, UsageError
from kleak.progress import make_progress

DEFAULT_CYCLES = 5


@dataclass(frozen=True, slots=True)
class ModuleOptions:
    """Which modules count, by path or name: ``target``, loaded with ``parameters``, and others."""

    target: str
    parameters: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def specs(self) -> tuple[str, ...]:
        """All of them, in the order in which they are loaded."""
        return (self.target, *self.others)

    def find(self, *, may_be_loaded: bool) -> tuple[ModuleTarget, ...]:
        """Return the modules. Raises UsageError where one cannot be, TargetError for its file."""
        if len(self.specs) > MAX_MODULES:
            raise UsageError(f"{len(self.specs)} modules at once; {MAX_MODULES} at most")
        targets = tuple(
            find_target(spec, () if number else self.parameters, may_be_loaded=may_be_loaded)
            for number, spec in enumerate(self.specs)
        )
        names = [found.name for found in targets]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"module {name} is named twice")
        return targets


@dataclass(frozen=True, slots=True)
class CycleOptions:
    """How often the modules come and go, and who sees to it. ``timeout`` is in seconds."""

    follow: bool
    cycles: int | None
    timeout: float | None


@dataclass(frozen=True, slots=True)
class ExerciseOptions:
    """What is done with the modules in each cycle."""

    exercise: str | None
    net_plans: tuple[str, ...]
    init_may_fail: bool

    def find(self) -> tuple[Exercise, ...]:
        """Return what to do. Raises KleakError for a plan that this machine cannot carry out."""
        found = []
        for plan in map(read_plan, self.net_plans):
            check_needs(plan)
            found.append(net_exercise(plan))
        if self.exercise is not None:
            found.append(shell_exercise(self.exercise))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class TimeoutOptions:
    """How long loading and unloading may take, in seconds."""

    load_timeout: float
    unload_timeout: float


module_options = option_group(
    "modules",
    ModuleOptions,
    click.argument("target", metavar="MODULE", type=click.Path()),
    click.argument("parameters", metavar="[NAME=VALUE]...", nargs=-1),
    click.option(
        "--module",
        "others",
        metavar="MODULE",
        type=click.Path(),
        multiple=True,
        help="Another module that counts, loaded after the first. May be given several times.",
    ),
)
cycle_options = option_group(
    "cycling",
    CycleOptions,
    click.option(
        "--follow",
        is_flag=True,
        help="Load nothing: watch while somebody else loads and unloads it. Ends with the report "
        "at Ctrl-C, or after --cycles or --timeout.",
    ),
    click.option(
        "--cycles",
        type=click.IntRange(1, MAX_LOADS),
        help="How often to load, exercise and unload; with --follow, how many such pairs of any "
        "of the modules to wait for. Growth needs 3 to be judged. [default: "
        f"{DEFAULT_CYCLES}; with --follow no limit]",
    ),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=Seconds(0, min_open=True),
        help="With --follow: report after so long at the latest.",
    ),
)
exercise_options = option_group(
    "exercise",
    ExerciseOptions,
    click.option(
        "--exercise", metavar="CMD", help="Shell command to run in each cycle while it is loaded."
    ),
    click.option(
        "--exercise-net",
        "net_plans",
        metavar="PLAN",
        type=click.Path(),
        multiple=True,
        help="What to do with network devices in each cycle, in private namespaces: a .toml file, "
        "or steps such as 'link add kind vxlan vxlan_id 42; link set kleak0 up'. May be given "
        "several times; comes before --exercise.",
    ),
    click.option(
        "--init-may-fail",
        is_flag=True,
        help="A load whose init fails is a cycle too: for leaks on error paths.",
    ),
)
timeout_options = option_group(
    "timeouts",
    TimeoutOptions,
    click.option("--load-timeout", type=Seconds(0, min_open=True), default=60.0, show_default=True),
    click.option(
        "--unload-timeout", type=Seconds(0, min_open=True), default=30.0, show_default=True
    ),
)


@click.command(
    epilog="Example: sudo kleak module ./leaky.ko debug=1 --cycles 5 --exercise 'cat /dev/leaky'",
)
@module_options
@cycle_options
@exercise_options
@timeout_options
@tracer_options()
@end_options
@session_options()
@output_options
def module(
    modules: ModuleOptions,
    cycling: CycleOptions,
    exercise: ExerciseOptions,
    timeouts: TimeoutOptions,
    tracer: TracerOptions,
    at_end: EndOptions,
    session: SessionOptions,
    output: OutputOptions,
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
    _check_mode(modules, cycling, exercise)
    reads = (*modules.specs, *exercise.net_plans)
    reporting = output.prepare(session=session.path, reads=reads)
    targets = modules.find(may_be_loaded=cycling.follow)
    exercises = exercise.find()
    tracing = Tracing(
        tracer.kernel_headers,
        tracer.limits,
        session.keep,
        kmemleak=not at_end.no_kmemleak,
        pointer_seconds=at_end.search_seconds,
    )
    progress = make_progress()
    with session.saved("-".join(found.name for found in targets)) as session_file:
        try:
            if cycling.follow:
                following = FollowRun(targets, cycling.cycles, cycling.timeout, tracing)
                outcome = follow_module(following, progress, session_file, _say_ready)
            else:
                run = ModuleRun(
                    targets,
                    cycling.cycles or DEFAULT_CYCLES,
                    exercises,
                    exercise.init_may_fail,
                    Timeouts(timeouts.load_timeout, timeouts.unload_timeout),
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


def _check_mode(modules: ModuleOptions, cycling: CycleOptions, exercise: ExerciseOptions) -> None:
    """Raise UsageError for an option that belongs to the other way to get cycles."""
    if not cycling.follow:
        if cycling.timeout is not None:
            raise UsageError("--timeout belongs to --follow")
        return
    driving = {
        "a module parameter": modules.parameters,
        "--exercise": exercise.exercise,
        "--exercise-net": exercise.net_plans,
        "--init-may-fail": exercise.init_may_fail,
    }
    for option, value in driving.items():
        if value:
            raise UsageError(f"{option} makes no sense with --follow, which loads nothing itself")


def _say_ready(names: str) -> None:
    click.echo(f"following {names}; Ctrl-C ends it with the report", err=True)
