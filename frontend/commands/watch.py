"""``kleak watch``: the running kernel, live."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click

from kleak.capture.engine.records import Limits
from kleak.capture.lifecycle import Tracing
from kleak.capture.machine.settings import require_root
from kleak.capture.scope import NamedScope
from kleak.commands.options.option_group import option_group
from kleak.commands.options.scope import scope_options, stacks_option
from kleak.commands.options.seconds import Seconds
from kleak.commands.options.session import SessionOptions, session_options
from kleak.commands.options.tracer import TracerOptions, tracer_options
from kleak.errors import KleakError
from kleak.progress import make_progress
from kleak.store.writer import check_session_place
from kleak.watch import prometheus
from kleak.watch import table as live_table
from kleak.watch.ledger import LiveLedger, Watch, open_ledger
from kleak.watch.metrics_server import DEFAULT_ADDRESS, PATH, MetricsServer
from kleak.watch.readings import ORDERS, Comparison, Reading, Refresh, Since, parse_filter
from kleak.watch.screen import Screen
from kleak.watch.view import Action, View, press

_LIMITS = Limits(outstanding=262144)
_TEND_S = 10.0


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
    if session.path is not None:
        check_session_place(Path(session.path))
    tracing = Tracing(tracer.kernel_headers, tracer.limits, session.keep, walk_every=walk_every)
    watched = Watch(scope, pid, tracing)
    progress = make_progress()
    with ExitStack() as stack:
        metrics = _Metrics(",".join(watched.scope.names))
        if prometheus_address is not None:
            stack.enter_context(
                MetricsServer(prometheus_address, metrics.page, prometheus.CONTENT_TYPE)
            )
        try:
            ledger = stack.enter_context(open_ledger(watched, progress))
        finally:
            progress.done()
        watching = _Watching(ledger, watched, viewing, metrics, session)
        try:
            if sys.stdout.isatty():
                watching.on_terminal()
            else:
                watching.in_pipe(viewing.rows)
        finally:
            if session.path is not None:
                watching.save(session)
                click.echo(f"session: {session.path} (kleak report shows it)", err=True)


class _Metrics:
    """The page of the latest reading."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self.reading: Reading | None = None

    def page(self) -> str:
        """Return it; nothing before the first reading."""
        return "" if self.reading is None else prometheus.render(self.reading, self._scope)


class _Watching:
    """One watch in progress: the ledger, what was read last, and what is shown of it."""

    def __init__(
        self,
        ledger: LiveLedger,
        watched: Watch,
        viewing: ViewOptions,
        metrics: _Metrics,
        session: SessionOptions,
    ) -> None:
        self._ledger = ledger
        self._target = watched.scope.target
        process = "" if watched.pid is None else f", process {watched.pid}"
        names = ", ".join(watched.scope.names)
        scope = "whole kernel" if names == "*" else names
        if watched.scope.own_calls:
            scope = f"own calls of {scope}"
        self._title = f"{scope}{process}, Linux {os.uname().release}"
        self._view = View(order=viewing.sort, filter_text=viewing.filter_text)
        self._interval_s = viewing.interval
        self._left = viewing.count
        self._metrics = metrics
        self._session = session
        self._comparison = Comparison(Since.START)
        self._due = time.monotonic() + viewing.interval
        self._tended = time.monotonic()
        self._latest = self._read()
        self._shown = self._latest

    def _read(self) -> Refresh:
        self._tended = time.monotonic()
        self._reading = self._metrics.reading = self._ledger.read()
        self._latest = self._comparison.update(self._reading)
        return self._latest

    def _refresh_if_due(self) -> bool:
        """Read if it is time to. Returns whether it was."""
        now = time.monotonic()
        if now < self._due:
            if now - self._tended >= _TEND_S:
                self._tended = now
                self._ledger.tend()
            return False
        # Not one refresh after the other where it was stopped for a while.
        self._due = max(self._due + self._interval_s, now)
        self._read()
        if not self._view.frozen:
            self._shown = self._latest
        if self._left is not None:
            self._left -= 1
        return True

    @property
    def _until_due(self) -> float:
        return min(self._due - time.monotonic(), _TEND_S)

    def in_pipe(self, rows: int) -> None:
        """Print a block at each refresh."""
        width = shutil.get_terminal_size((120, 24)).columns
        for note in self._ledger.notes:
            click.echo(f"note: {note}")
        while self._left != 0:
            time.sleep(max(0.0, self._until_due))
            if self._refresh_if_due():
                lines = live_table.block(self._shown, self._view, self._title, width, rows)
                click.echo("\n".join((f"{time.strftime('%FT%T%z')}", *lines, "")))
                sys.stdout.flush()

    def on_terminal(self) -> None:
        """Show a picture, and do what keys say."""
        with Screen(sys.stdin, sys.stdout) as screen:
            self._draw(screen)
            while self._left != 0:
                keys = screen.wait(self._until_due)
                for key in keys:
                    if not self._press(key, screen):
                        return
                # Where pictures replace each other it may be of another size now, or lost.
                if self._refresh_if_due() or keys or screen.redraws:
                    self._draw(screen)

    def _draw(self, screen: Screen) -> None:
        size = screen.size
        lines = live_table.screen(
            self._shown, self._view, self._title, self._ledger.notes, size.columns, size.lines
        )
        screen.draw(lines)

    def _press(self, key: str, screen: Screen) -> bool:
        """Do what a key says. Returns whether to go on."""
        self._view, action = press(self._view, key)
        if action is Action.QUIT:
            return False
        try:
            if action is Action.MARK:
                self._mark()
            elif action is Action.SINCE:
                self._turn()
            elif action is Action.SAVE:
                self._save_as_asked(screen)
        except KleakError as error:
            self._say(str(error))
        if not self._view.frozen:
            self._shown = self._latest
        return True

    def _mark(self) -> None:
        self._ledger.mark()
        self._count_since(Since.MARK)
        self._say(f"mark {self._reading.marks} set: what is allocated from now on is shown")

    def _turn(self) -> None:
        if not self._reading.marks:
            self._say("there is no mark yet: m sets one")
            return
        other = Since.START if self._comparison.since is Since.MARK else Since.MARK
        self._count_since(other)

    def _count_since(self, since: Since) -> None:
        self._comparison = Comparison(since)
        self._view = replace(self._view, frozen=False, page=0)
        self._shown = self._read()

    def _save_as_asked(self, screen: Screen) -> None:
        self._say("saving ...")
        self._draw(screen)
        self._say(f"saved {self.save(replace(self._session, path=None))}")

    def save(self, options: SessionOptions) -> Path:
        """Write a session, and return where. Raises KleakError where that fails."""
        with options.open(self._target.name) as writer:
            try:
                writer.save(self._ledger.session(options.keep))
            finally:
                if writer.failed:
                    writer.discard()
            return writer.path

    def _say(self, message: str) -> None:
        self._view = replace(self._view, message=message)
