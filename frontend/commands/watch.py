"""``kleak watch``: the running kernel, live."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import click

from kleak.capture.engine.records import Limits
from kleak.capture.lifecycle import Tracing
from kleak.capture.machine.settings import require_root
from kleak.capture.scope import NamedScope
from kleak.commands.options.option_group import option_group
from kleak.commands.options.scope import scope_options, stacks_option
from kleak.commands.options.seconds import Seconds
from kleak.commands.options.session import SessionOptions, open_session, session_options
from kleak.commands.options.tracer import TracerOptions, tracer_options
from kleak.progress import make_progress
from kleak.watch.ledger import Watch, open_ledger
from kleak.watch.metrics_server import DEFAULT_ADDRESS, PATH, MetricsServer
from kleak.watch.readings import ORDERS, parse_filter
from kleak.watch.view import View
from kleak.watch.watching import Pace, Watching

_LIMITS = Limits(outstanding=262144)


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """What is shown at first, and how often. ``interval`` is in seconds."""

    interval: float
    count: int | None
    sort: str
    filter_text: str
    rows: int


view_options = option_group(
    "viewing",
    ViewOptions,
    click.option(
        "--interval",
        type=Seconds(0.1, 86400),
        default=2.0,
        show_default=True,
        metavar="SECONDS",
        help="Time between refreshes.",
    ),
    click.option(
        "--count",
        type=click.IntRange(1),
        metavar="N",
        help="End after so many refreshes. [default: at q, or Ctrl-C]",
    ),
    click.option(
        "--sort",
        type=click.Choice(ORDERS),
        default="bytes",
        show_default=True,
        help="What the sites are sorted by.",
    ),
    click.option(
        "--filter", "filter_text", default="", metavar="TERMS", help="As / in the picture."
    ),
    click.option(
        "--rows",
        type=click.IntRange(1),
        default=20,
        show_default=True,
        help="Sites of a refresh that are printed into a pipe.",
    ),
)


@click.command(
    epilog="Example: sudo kleak watch --scope 'ext4_*' --sort change",
)
@scope_options
@click.option(
    "--pid",
    type=click.IntRange(1),
    help="Only what this process, and those that it starts, allocate counts.",
)
@view_options
@click.option(
    "--prometheus",
    "prometheus_address",
    metavar="ADDR:PORT",
    is_flag=False,
    flag_value=DEFAULT_ADDRESS,
    help=f"Serve the totals by site at http://ADDR:PORT{PATH}, to whoever asks; ADDR is the "
    f"loopback if not given. [without a value: {DEFAULT_ADDRESS}]",
)
@session_options(says="Save a session at the end, for kleak report.")
@stacks_option
@tracer_options(_LIMITS)
def watch(
    scope: NamedScope,
    pid: int | None,
    viewing: ViewOptions,
    prometheus_address: str | None,
    session: SessionOptions,
    walk_every: int,
    tracer: TracerOptions,
) -> None:
    """Show what the kernel allocates from now on and has not freed, by site, again and again.

    On a terminal it is a picture with keys (? lists them); in a pipe, a block of lines at each
    refresh. Much of what is outstanding is in use: a leak is what grows and stays.
    """
    parse_filter(viewing.filter_text)
    require_root()
    session.check()
    tracing = Tracing(tracer.kernel_headers, tracer.limits, session.keep, walk_every=walk_every)
    watched = Watch(scope, pid, tracing)
    view = View(order=viewing.sort, filter_text=viewing.filter_text)
    pace = Pace(viewing.interval, viewing.count)
    progress = make_progress()
    with ExitStack() as stack:
        metrics = None
        if prometheus_address is not None:
            server = MetricsServer(prometheus_address, ",".join(scope.names))
            metrics = stack.enter_context(server).metrics
        try:
            ledger = stack.enter_context(open_ledger(watched, progress))
        finally:
            progress.done()
        unnamed = partial(open_session, None, scope.target.name)
        watching = Watching(ledger, watched, view, pace, unnamed, metrics)
        try:
            if sys.stdout.isatty():
                watching.on_terminal()
            else:
                watching.in_pipe(viewing.rows)
        finally:
            if session.path is not None:
                watching.save(session.open(scope.target.name))
                click.echo(f"session: {session.path} (kleak report shows it)", err=True)
