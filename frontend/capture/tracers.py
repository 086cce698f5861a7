"""Tracers for what is to be observed, compiled and not attached yet."""

from __future__ import annotations

from collections.abc import Sequence

from kleak.capture.engine.events import plan_here
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Tracing
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.scope import NamedScope
from kleak.progress import Progress
from kleak.symbols.kernel_table import KernelTable


def tracer_of_modules(names: Sequence[str], tracing: Tracing, progress: Progress) -> Tracer:
    """Return a tracer for modules that come and go.

    Raises UnsupportedError where this machine cannot trace at all.
    """
    progress.say("reading the kernel's types and symbols")
    plan = plan_here(read_kernel_table(), modules=True)
    progress.say("compiling and attaching")
    return Tracer(plan, find_headers(tracing.headers), modules=tuple(names), limits=tracing.limits)


def tracer_of_scope(
    scope: NamedScope,
    tracing: Tracing,
    progress: Progress,
    *,
    processes: bool,
    by_process: bool,
) -> tuple[Tracer, KernelTable]:
    """Return a tracer for code of the kernel and of loaded modules, and the kernel's symbols.

    ``processes``: a process tree is followed; ``by_process``: only what that allocates. Raises as
    NamedScope.find(), and UnsupportedError where this machine cannot trace at all.
    """
    progress.say("reading the kernel's types and symbols")
    table = read_kernel_table()
    found = scope.find(table)
    plan = plan_here(table, modules=False, processes=processes)
    progress.say("compiling and attaching")
    tracer = Tracer(
        plan,
        find_headers(tracing.headers),
        symbols=found.symbols,
        loaded=found.loaded,
        by_process=by_process,
        own_calls=scope.own_calls,
        limits=tracing.limits,
        walk_every=tracing.walk_every,
    )
    return tracer, table
