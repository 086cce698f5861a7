"""Writing a session while it goes on: after each save, all that was seen so far is on disk."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple
from pathlib import Path
from types import TracebackType

from kleak.errors import UnsupportedError, UsageError
from kleak.files.output_files import Place, checked_place
from kleak.model.session import Frame, Session, Tally
from kleak.store.header import is_session
from kleak.store.schema import APPLICATION_ID, SCHEMA_VERSION, TABLES, signed
from kleak.store.unnamed import open_unnamed, pieces

_EMPTY = (Tally(), Tally())


class SessionExistsError(UsageError):
    """A session lies there already, and nobody said that it may go."""


class SessionWriter:
    """One session file. Use as a context.

    :meth:`save` takes a session that grows from call to call, and puts a whole file in place of
    the one before: it is on disk when save() returns, and a writer that is killed inside leaves
    what the call before saved.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        """Make the file, readable and writable by its owner alone.

        ``replace``: an older session may go, once a cycle has been saved. Under sudo the file
        belongs to the user who called it: reading needs no root. Raises SessionExistsError where
        one lies there, another KleakError where the file cannot be made.
        """
        self.path = path
        self.saved_cycles = 0
        self.failed = False
        with ExitStack() as held:
            self._place = held.enter_context(_session_place(path, replace=replace))
            self._older_stays = self._place.there is not None
            if not self._older_stays:
                # So that a capture whose machine goes down in its first cycle leaves a trace.
                self._put(None, self._create)
            self._held = held.pop_all()

    def __enter__(self) -> SessionWriter:
        """Nothing happens on the way in."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the directory."""
        self._held.close()

    def discard(self) -> None:
        """Remove the file: nothing was captured. An older session stays."""
        if not self._older_stays:
            self._place.remove(self._place.base)

    def save(self, session: Session) -> None:
        """Replace the file by one with ``session``.

        Raises UnsupportedError where it cannot be written (a full disk); what was saved before
        stays, and a later save does nothing.
        """
        if self.failed or (self._older_stays and not session.cycles):
            return
        self._put(session, self._replace)
        self._older_stays = False
        self.saved_cycles = len(session.cycles)

    def _create(self, content: Iterable[bytes]) -> None:
        try:
            self._place.create(content)
        except FileExistsError as error:  # since it was looked for
            raise _exists(self.path) from error

    def _replace(self, content: Iterable[bytes]) -> None:
        self._place.replace(content, keeps_mode=False, durably=True)

    def _put(self, session: Session | None, put: Callable[[Iterable[bytes]], None]) -> None:
        try:
            database, file = open_unnamed()
            with closing(file), closing(database):
                _Tables(database).write(session)
                put(pieces(file))
        except (OSError, sqlite3.Error) as error:
            self.failed = True
            raise UnsupportedError(
                f"{self.path}: cannot save the session: {_reason(error)} ({self._what_is_there()})"
            ) from error

    def _what_is_there(self) -> str:
        if self.saved_cycles:
            return f"it ends with cycle {self.saved_cycles}"
        return "the older one stays" if self._older_stays else "no cycle is saved"


def check_session_place(path: Path, *, replace: bool) -> None:
    """Raise the KleakError that a SessionWriter of ``path`` would raise."""
    with _session_place(path, replace=replace):
        pass


@contextmanager
def _session_place(path: Path, *, replace: bool) -> Iterator[Place]:
    if str(path) == "-":
        raise UsageError("-o -: a session needs a file")
    with checked_place(str(path)) as place:
        if not place.is_file:
            raise UsageError(f"{path} is no regular file, and a session needs one")
        if place.there is not None and place.there.st_size:
            if not is_session(place.base, dir_fd=place.directory):
                raise UsageError(f"{path} exists and is no session: kleak will not overwrite it")
            if not replace:
                raise _exists(path)
        yield place


def _exists(path: Path) -> SessionExistsError:
    return SessionExistsError(f"{path} exists: --force replaces it, -o names another file")


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


class _Tables:
    """The tables of one file while they are written."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._frames: dict[tuple[Frame, str | None, int | None], int] = {}

    def write(self, session: Session | None) -> None:
        """Make the tables, and fill them with ``session`` if there is one yet."""
        run = self._database.execute
        run(f"PRAGMA application_id = {APPLICATION_ID}")
        run(f"PRAGMA user_version = {SCHEMA_VERSION}")
        run("BEGIN")
        for statement in TABLES.split(";"):
            run(statement)
        if session is not None:
            self._write(session)
        run("COMMIT")

    def _write(self, session: Session) -> None:
        self._write_session(session)
        self._write_trust(session)
        self._write_circumstances(session)
        sites = list(enumerate(session.sites, start=1))
        self._insert(
            "sites", 3, ((number, site.allocator, site.requested_bytes) for number, site in sites)
        )
        self._insert(
            "site_frames",
            3,
            [
                (number, depth, self._frame(frame))
                for number, site in sites
                for depth, frame in enumerate(site.frames)
            ],
        )
        self._insert(
            "tallies",
            6,
            (
                (number, cycle, made.count, made.size_bytes, freed.count, freed.size_bytes)
                for number, site in sites
                for cycle, (made, freed) in enumerate(site.cycles, start=1)
                if (made, freed) != _EMPTY
            ),
        )
        self._insert(
            "allocations",
            9,
            (
                (number, signed(kept.address), *kept[1:])
                for number, site in sites
                for kept in site.kept
            ),
        )
        self._insert(
            "reachability",
            7,
            (
                (number, *astuple(site.reachability))
                for number, site in sites
                if site.reachability is not None
            ),
        )
        self._insert(
            "stack_samples",
            5,
            [
                (number, self._frame(one.call_site), one.walked, one.different, one.shown)
                for number, site in sites
                for one in (site.stacks,)
                if one is not None
            ],
        )

    def _insert(self, table: str, columns: int, rows: Iterable[tuple[object, ...]]) -> None:
        places = ", ".join("?" * columns)
        self._database.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608

    def _write_session(self, session: Session) -> None:
        about, kernel, target = session.circumstances, session.kernel, session.target
        row = (
            1,
            about.kleak_version,
            about.host,
            about.started_at,
            about.read_at_ns,
            about.planned_cycles,
            about.finished,
            session.vmalloc_regions is not None,
            kernel.release,
            kernel.machine,
            kernel.build_id,
            target.kind,
            target.name,
            target.path,
            target.version,
            target.build_id,
            kernel.page_bytes,
        )
        self._insert("session", len(row), [row])
        self._insert("target_parameters", 2, enumerate(target.parameters))
        self._insert("scope", 2, enumerate(about.scope))
        self._insert(
            "cycles",
            5,
            (
                (
                    cycle.index,
                    cycle.loaded_at_ns,
                    cycle.unloaded_at_ns,
                    cycle.failure,
                    cycle.module,
                )
                for cycle in session.cycles
            ),
        )
        self._insert(
            "vmalloc_regions",
            5,
            (
                (signed(one.address), one.size_bytes, one.pages, one.kind, one.caller)
                for one in session.vmalloc_regions or ()
            ),
        )

    def _write_trust(self, session: Session) -> None:
        trust = session.trust
        self._insert("losses", 2, trust.lost.items())
        self._insert("repairs", 2, trust.repaired.items())
        self._insert("observations", 2, trust.observed.items())
        self._insert("means", 2, trust.means.items())
        said = ((name, str(state)) for name, state in trust.witnesses.items())
        self._insert("witnesses", 2, said)
        self._insert("notes", 2, enumerate(trust.notes))

    def _write_circumstances(self, session: Session) -> None:
        about = session.circumstances
        self._insert("build_ids", 2, about.build_ids.items())
        self._insert(
            "settings",
            5,
            (
                (position, one.path, one.before, one.during, one.restored)
                for position, one in enumerate(about.settings)
            ),
        )
        for position, sample in enumerate(about.samples):
            held = sample.outstanding
            row = (position, sample.time_ns, sample.when, sample.cycle, held.count, held.size_bytes)
            self._insert("samples", len(row), [row])
            self._insert(
                "sample_meminfo",
                3,
                ((position, name, size) for name, size in sample.meminfo_bytes.items()),
            )
        self._insert(
            "answers",
            4,
            (
                (position, one.witness, one.taken_at_ns, zlib.compress(one.text.encode()))
                for position, one in enumerate(about.answers)
            ),
        )

    def _frame(self, frame: Frame) -> int:
        source = frame.source
        file, line = (None, None) if source is None else (source.file, source.line)
        key = (frame, file, line)
        number = self._frames.get(key)
        if number is None:
            number = self._frames[key] = len(self._frames) + 1
            row = (number, frame.module, frame.symbol, signed(frame.offset), file, line)
            self._insert("frames", len(row), [row])
        return number
