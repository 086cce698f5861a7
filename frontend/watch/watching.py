"""One watch in progress: reading again and again, showing, and doing what keys say."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kleak.errors import KleakError
from kleak.store.writer import SessionWriter
from kleak.watch import table
from kleak.watch.ledger import LiveLedger, Watch
from kleak.watch.readings import Comparison, Refresh, Since
from kleak.watch.screen import Key, Screen
from kleak.watch.view import Action, View, press

if TYPE_CHECKING:
    from kleak.watch.prometheus import Metrics

_TEND_S = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to read, and how many times, if that is limited."""

    interval_s: float
    count: int | None


class Watching:
    """One watch in progress: the ledger, what was read last, and what is shown of it."""

    def __init__(
        self,
        ledger: LiveLedger,
        watched: Watch,
        view: View,
        pace: Pace,
        open_session: Callable[[], SessionWriter],
        metrics: Metrics | None = None,
    ) -> None:
        """Read once. ``open_session`` makes the file for a session that a key asks for;
        ``metrics`` get each reading.
        """
        self._ledger = ledger
        self._title = _title(watched)
        self._view = view
        self._pace = pace
        self._keep = watched.tracing.keep
        self._left = pace.count
        self._metrics = metrics
        self._open_session = open_session
        self._comparison = Comparison(Since.START)
        self._due = time.monotonic() + pace.interval_s
        self._tended = time.monotonic()
        self._latest = self._read()
        self._shown = self._latest

    def _read(self) -> Refresh:
        self._tended = time.monotonic()
        self._reading = self._ledger.read()
        if self._metrics is not None:
            self._metrics.reading = self._reading
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
        self._due = max(self._due + self._pace.interval_s, now)
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
                lines = table.block(self._shown, self._view, self._title, width, rows)
                click.echo("\n".join((f"{time.strftime('%FT%T%z')}", *lines, "")))
                sys.stdout.flush()

    def on_terminal(self) -> None:
        """Show a picture, and do what keys say."""
        with Screen() as screen:
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
        lines = table.screen(
            self._shown, self._view, self._title, self._ledger.notes, size.columns, size.lines
        )
        screen.draw(lines)

    def _press(self, key: Key, screen: Screen) -> bool:
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
        self._say(f"saved {self.save(self._open_session())}")

    def save(self, session: SessionWriter) -> Path:
        """Write a session, and return where. Raises KleakError where that fails."""
        with session as writer:
            try:
                writer.save(self._ledger.session(self._keep))
            finally:
                if writer.failed:
                    writer.discard()
            return writer.path

    def _say(self, message: str) -> None:
        self._view = replace(self._view, message=message)


def _title(watched: Watch) -> str:
    names = ", ".join(watched.scope.names)
    scope = "whole kernel" if names == "*" else names
    if watched.scope.own_calls:
        scope = f"own calls of {scope}"
    process = "" if watched.pid is None else f", process {watched.pid}"
    return f"{scope}{process}, Linux {os.uname().release}"
