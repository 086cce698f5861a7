"""Writing a session while it goes on: after each save, all that was seen so far is on disk."""

from __future__ import annotations

import signal
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from types import TracebackType

from kleak.errors import UnsupportedError, UsageError
from kleak.files.output_files import Place, check_place, failure
from kleak.model.session import CycleTally, Frame, Session, Tally, TracedSite
from kleak.store.replace import SessionPlace
from kleak.store.schema import APPLICATION_ID, SCHEMA_VERSION, TABLES, signed

_SiteKey = tuple[str, tuple[Frame, ...]]

_EMPTY = CycleTally(Tally(), Tally())
_SMALL_TABLES = (
    "session",
    "target_parameters",
    "scope",
    "cycles",
    "allocations",
    "reachability",
    "pointers",
    "pointer_holders",
    "stack_samples",
    "losses",
    "repairs",
    "observations",
    "means",
    "witnesses",
    "notes",
    "build_ids",
    "settings",
    "sample_meminfo",
    "samples",
    "answers",
    "vmalloc_regions",
)


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let Ctrl-C wait: half a save would leave the writer with another idea of the file.

    By handlers, not by a mask: a mask is one thread's, and another would take the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in _ENDING
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


class SessionWriter:
    """One session file. Use as a context: leaving it closes the file.

    :meth:`save` takes a session that grows from call to call, and is one transaction: it is on
    disk when it returns, and a writer that is killed inside leaves what the call before saved.
    An older session at the same place stays until a cycle has been saved.
    """

    def __init__(self, path: Path, *, new: bool = False) -> None:
        """Create the file, readable and writable by its owner alone; ``new``: not in place of an
        older one, with FileExistsError where one is.

        Under sudo it belongs to the user who called it: reading needs no root. Raises KleakError
        where it cannot be created, or something else than a session is there.
        """
        self.path = path
        self.saved_cycles = 0
        self.failed = False
        self._sites: dict[_SiteKey, int] = {}
        self._last_site = 0
        self._frames: dict[tuple[Frame, str | None, int | None], int] = {}
        self._written: dict[tuple[int, int], CycleTally] = {}
        self._requested: dict[int, int | None] = {}
        place = check_session_place(path)
        try:
            self._place = SessionPlace(place, new=new)
        except FileExistsError:
            raise
        except OSError as error:
            raise failure(str(path), error) from error
        try:
            self._database = self._open()
            self._create()
        except BaseException as error:
            self._place.discard()
            self._place.close()
            if not isinstance(error, (OSError, sqlite3.Error)):
                raise
            raise UnsupportedError(
                f"{path}: cannot save the session there: {error}; -o names another place"
            ) from error

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._place.file, isolation_level=None)
        # A rollback journal, not a log: a session at rest is one file, and shared memory, which
        # a log needs, does not work on the 9p shares of a virtual machine. EXTRA also syncs the
        # directory once the journal is gone, or a power cut could bring it back.
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA synchronous = EXTRA")
        return database

    def _create(self) -> None:
        run = self._database.execute
        run(f"PRAGMA application_id = {APPLICATION_ID}")
        run("BEGIN IMMEDIATE")
        for statement in TABLES.split(";"):
            run(statement)
        run(f"PRAGMA user_version = {SCHEMA_VERSION}")
        run("COMMIT")
        self._place.sync()

    def __enter__(self) -> SessionWriter:
        """Nothing happens on the way in."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._database.close()
        self._place.close()

    def discard(self) -> None:
        """Remove the file: nothing was captured. An older session stays."""
        self._database.close()
        self._place.discard()

    def save(self, session: Session) -> None:
        """Bring the file up to ``session``, which has all that earlier ones had, and maybe more.

        Raises UnsupportedError where the file cannot be written (a full disk); what was saved
        before stays, and a later save does nothing.
        """
        if self.failed:
            return
        try:
            with _signals_held_back():
                self._database.execute("BEGIN IMMEDIATE")
                self._write(session)
                self._database.execute("COMMIT")
                if session.cycles and self._place.replaces:
                    self._settle()
                self.saved_cycles = len(session.cycles)
        except (OSError, sqlite3.Error) as error:
            with suppress(sqlite3.Error):  # SQLite has rolled back by itself where it had to
                self._database.execute("ROLLBACK")
            self.failed = True
            raise UnsupportedError(
                f"{self.path}: cannot save the session: {error} ({self._what_is_there()})"
            ) from error

    def _settle(self) -> None:
        """Put the file in place of an older session."""
        self._database.close()
        self._place.settle()
        self._database = self._open()
        self._place.sync()

    def _what_is_there(self) -> str:
        if self.saved_cycles:
            return f"it ends with cycle {self.saved_cycles}"
        return "the older one stays" if self._place.replaces else "no cycle is saved"

    def _write(self, session: Session) -> None:
        for table in _SMALL_TABLES:
            self._database.execute(f"DELETE FROM {table}")  # noqa: S608 (names from above)
        self._write_session(session)
        self._write_trust(session)
        self._write_circumstances(session)
        self._forget({(site.allocator, site.frames) for site in session.sites})
        numbers = [self._number(site) for site in session.sites]
        for number, site in zip(numbers, session.sites, strict=True):
            self._write_site(number, site)
        self._insert(
            "allocations",
            9,
            (
                (number, signed(kept.address), *kept[1:])
                for number, site in zip(numbers, session.sites, strict=True)
                for kept in site.kept
            ),
        )
        self._insert(
            "reachability",
            7,
            (
                (number, *astuple(site.reachability))
                for number, site in zip(numbers, session.sites, strict=True)
                if site.reachability is not None
            ),
        )
        self._write_pointers(numbers, session.sites)
        self._insert(
            "stack_samples",
            5,
            [
                (number, self._frame(one.call_site), one.walked, one.different, one.shown)
                for number, site in zip(numbers, session.sites, strict=True)
                for one in (site.stacks,)
                if one is not None
            ],
        )

    def _write_pointers(self, numbers: Sequence[int], sites: Sequence[TracedSite]) -> None:
        found = [
            (number, site.pointers)
            for number, site in zip(numbers, sites, strict=True)
            if site.pointers is not None
        ]
        self._insert(
            "pointers",
            4,
            ((number, one.searched, one.unreferenced, one.referenced) for number, one in found),
        )
        self._insert(
            "pointer_holders",
            4,
            (
                (number, position, what, objects)
                for number, one in found
                for position, (what, objects) in enumerate(one.holders)
            ),
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

    def _forget(self, present: set[_SiteKey]) -> None:
        """Remove sites that have become others: a frame got another name when modules came."""
        for key in [key for key in self._sites if key not in present]:
            number = self._sites.pop(key)
            del self._requested[number]
            self._written = {at: kept for at, kept in self._written.items() if at[0] != number}
            for table, column in (("tallies", "site"), ("site_frames", "site"), ("sites", "id")):
                self._database.execute(
                    f"DELETE FROM {table} WHERE {column} = ?",  # noqa: S608 (names from above)
                    (number,),
                )

    def _number(self, site: TracedSite) -> int:
        """Return the number of a site in the file; write its stack if it is new."""
        key = (site.allocator, site.frames)
        number = self._sites.get(key)
        if number is None:
            self._last_site += 1
            number = self._sites[key] = self._last_site
            self._insert("sites", 3, [(number, site.allocator, site.requested_bytes)])
            self._requested[number] = site.requested_bytes
            frames = [self._frame(frame) for frame in site.frames]
            self._insert("site_frames", 3, ((number, i, frame) for i, frame in enumerate(frames)))
        return number

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

    def _write_site(self, number: int, site: TracedSite) -> None:
        if self._requested[number] != site.requested_bytes:
            self._database.execute(
                "UPDATE sites SET requested_bytes = ? WHERE id = ?", (site.requested_bytes, number)
            )
            self._requested[number] = site.requested_bytes
        rows = []
        for cycle, tally in enumerate(site.cycles, start=1):
            key = (number, cycle)
            if tally != self._written.get(key, _EMPTY):
                self._written[key] = tally
                made, freed = tally.allocated, tally.freed
                rows.append(
                    (number, cycle, made.count, made.size_bytes, freed.count, freed.size_bytes)
                )
        if rows:
            self._database.executemany(
                "INSERT OR REPLACE INTO tallies VALUES (?, ?, ?, ?, ?, ?)", rows
            )


def check_session_place(path: Path) -> Place:
    """Return where a session at ``path`` would lie. Raises KleakError if it cannot."""
    if str(path) == "-":
        raise UsageError("-o -: a session needs a file")
    place = check_place(str(path))
    if not place.is_file:
        raise UsageError(f"{path} is no regular file, and a session needs one")
    if place.there is not None and place.there.st_size and not is_session(path):
        raise UsageError(f"{path} exists and is no session: kleak will not overwrite it")
    return place


def is_session(path: Path) -> bool:
    """Whether ``path`` starts as a session file does."""
    with path.open("rb") as file:
        head = file.read(72)
    # The file format of SQLite: application_id is the 32-bit number at offset 68.
    return head.startswith(b"SQLite format 3\0") and head[68:72] == APPLICATION_ID.to_bytes(
        4, "big"
    )
