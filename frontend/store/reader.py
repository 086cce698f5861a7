"""Reading a session back from its file."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, overload
from weakref import finalize

from kleak.errors import UsageError
from kleak.model.session import (
    CYCLES_CUT_OFF,
    FINAL_WAIT_CUT_SHORT,
    PAGE_BYTES,
    Allocation,
    Answer,
    Circumstances,
    Cycle,
    CycleTally,
    Frame,
    Kernel,
    MemorySample,
    PointersTo,
    Reachability,
    Session,
    Setting,
    Source,
    StackSample,
    Tally,
    Target,
    TracedSite,
    Trust,
    VmallocRegion,
)
from kleak.model.witnesses import WitnessState
from kleak.store import schema
from kleak.store.schema import APPLICATION_ID, unsigned
from kleak.store.writer import is_session

_YEAR_10000 = 253402300800
_NOTHING = Tally()
_EMPTY = CycleTally(_NOTHING, _NOTHING)


def read_session(path: Path) -> Session:
    """Read a session file of this or an older version. The file keeps its version.

    A session that was cut short says so in its trust. Raises UsageError where ``path`` is no
    session, is damaged, or was written by a newer kleak.
    """
    with _damage_told(path):
        if not is_session(path):
            raise UsageError(f"{path} is no kleak session")
        # Holds the file open until this is through, then as long as the session needs it.
        allocations = _AllocationTable(path, _upgraded(path, _open(path)))
        return _read(path, allocations)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn what a damaged or unreadable file raises into a UsageError that names it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    # Not only SQLite notices damage: a text may hold no UTF-8, a number may be a text.
    except (sqlite3.Error, zlib.error, ValueError, TypeError, LookupError) as error:
        raise UsageError(f"{path}: the session is damaged ({error})") from error


def _open(path: Path) -> sqlite3.Connection:
    """Open ``path`` for reading, after a crash too.

    A writer that was killed may leave a journal, from which SQLite restores the last whole save
    before it reads. It needs to write for that; where it may not, a copy is restored.
    """
    if not path.with_name(f"{path.name}-journal").exists():
        return _connect(path, "ro")
    try:
        return _connect(path, "rw")
    except sqlite3.OperationalError:
        with tempfile.TemporaryDirectory(prefix="kleak-") as directory:
            for name in (path.name, f"{path.name}-journal"):
                shutil.copyfile(path.with_name(name), Path(directory) / name)
            return _connect(Path(directory) / path.name, "rw")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, isolation_level=None)
    database.execute("SELECT count(*) FROM sqlite_master")  # opens it in fact
    return database


def _upgraded(path: Path, database: sqlite3.Connection) -> sqlite3.Connection:
    """Return ``database``, or a copy of it in memory that was brought to today's version."""
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise UsageError(f"{path} is no kleak session")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > schema.SCHEMA_VERSION:
        raise UsageError(
            f"{path} was written by a newer kleak (session version {version}, this one reads "
            f"up to {schema.SCHEMA_VERSION}): update kleak"
        )
    if version == 0:
        raise UsageError(f"{path}: the capture ended before it saved anything")
    problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(problem.splitlines()[-1])
    if version == schema.SCHEMA_VERSION:
        _check_types(database)
        return database
    memory = sqlite3.connect(":memory:", isolation_level=None)
    database.backup(memory)
    database.close()
    for older in range(version, schema.SCHEMA_VERSION):
        memory.executescript(schema.MIGRATIONS[older])
    _check_types(memory)
    return memory


@cache
def _conditions() -> dict[str, dict[str, str]]:
    """For each table, for each column, SQL that is true of a value of another type than it has."""
    database = sqlite3.connect(":memory:")
    database.executescript(schema.TABLES)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for table in tables:
        for _, column, kind, not_null, _, key in database.execute(f"PRAGMA table_info({table})"):
            types = [kind.lower(), *(() if not_null or key else ("null",))]
            found[table][column] = f"typeof({column}) NOT IN ({', '.join(map(repr, types))})"
    database.close()
    return dict(found)


def _check_types(database: sqlite3.Connection, table: str = "", where: str = "1") -> None:
    """Raise TypeError where a value is not of its column's type, which SQLite does not ask for.

    Of all tables but the largest, ``allocations``, or of the rows ``where`` of one ``table``.
    """
    for name, conditions in _conditions().items():
        if name != table if table else name == "allocations":
            continue
        columns = {row[1] for row in database.execute(f"PRAGMA table_info({name})")}
        # The first files of a version lack some.
        wrong = " OR ".join(conditions[column] for column in conditions if column in columns)
        query = f"SELECT 1 FROM {name} WHERE ({where}) AND ({wrong}) LIMIT 1"  # noqa: S608
        if wrong and database.execute(query).fetchone():
            raise TypeError(f"a value of another type in table {name}")


class _Row(NamedTuple):
    """The one row of table ``session``, its columns in order without ``id``."""

    kleak_version: str | None
    host: str | None
    started_at: float | None
    read_at_ns: int | None
    planned_cycles: int | None
    finished: int
    has_vmalloc_regions: int
    kernel_release: str
    kernel_machine: str
    kernel_build_id: str | None
    target_kind: str
    target_name: str
    target_path: str | None
    target_version: str | None
    target_build_id: str | None
    # The first files of this version were written without it.
    kernel_page_bytes: int | None = None


def _read(path: Path, allocations: _AllocationTable) -> Session:
    database = allocations.database
    run = database.execute
    columns = {column[1] for column in run("PRAGMA table_info(session)")}
    names = [name for name in _Row._fields if name in columns]
    found = run(f"SELECT {', '.join(names)} FROM session").fetchone()  # noqa: S608
    if found is None:
        raise UsageError(f"{path}: the capture ended before it saved anything")
    row = _Row(*found)
    if row.started_at is not None and not 0 <= row.started_at < _YEAR_10000:
        raise ValueError(f"no time: {row.started_at:g}")
    cycles = tuple(
        Cycle(*values)
        for values in run(
            "SELECT number, loaded_at_ns, unloaded_at_ns, failure, module FROM cycles "
            "ORDER BY number"
        )
    )
    regions = tuple(
        VmallocRegion(unsigned(address), *rest)
        for address, *rest in run(
            "SELECT address, size_bytes, pages, kind, caller FROM vmalloc_regions ORDER BY rowid"
        )
    )
    return Session(
        kernel=Kernel(
            row.kernel_release,
            row.kernel_machine,
            row.kernel_build_id,
            row.kernel_page_bytes or PAGE_BYTES,
        ),
        target=Target(
            row.target_kind,
            row.target_name,
            row.target_path,
            tuple(_list(database, "SELECT value FROM target_parameters ORDER BY position")),
            row.target_version,
            row.target_build_id,
        ),
        cycles=cycles,
        sites=_read_sites(allocations, len(cycles)),
        trust=_read_trust(database, row, len(cycles)),
        vmalloc_regions=regions if row.has_vmalloc_regions else None,
        circumstances=_read_circumstances(database, row),
    )


def _list(database: sqlite3.Connection, query: str) -> list[Any]:
    return [value for (value,) in database.execute(query)]


def _read_sites(allocations: _AllocationTable, cycles: int) -> tuple[TracedSite, ...]:
    run = allocations.database.execute
    frames = {}
    for number, module, symbol, offset, file, line in run(
        "SELECT id, module, symbol, offset, file, line FROM frames"
    ):
        source = None if file is None else Source(file, line)
        frames[number] = Frame(module, symbol, unsigned(offset), source)
    stacks: defaultdict[int, list[Frame]] = defaultdict(list)
    for site, frame in run("SELECT site, frame FROM site_frames ORDER BY site, depth"):
        stacks[site].append(frames[frame])
    tallies: defaultdict[int, list[CycleTally]] = defaultdict(lambda: [_EMPTY] * cycles)
    for site, cycle, made, made_bytes, freed, freed_bytes in run(
        "SELECT site, cycle, allocated, allocated_bytes, freed, freed_bytes FROM tallies"
    ):
        tallies[site][cycle - 1] = CycleTally(Tally(made, made_bytes), Tally(freed, freed_bytes))
    places = {
        site: (first, number)
        for site, first, number in run(
            "SELECT site, min(rowid), count(*) FROM allocations GROUP BY site"
        )
    }
    reachability = {}
    # The first files of this version were written before kmemleak was asked.
    if run("SELECT 1 FROM sqlite_master WHERE name = 'reachability'").fetchone() is not None:
        for site, *counts in run(
            "SELECT site, unreferenced, same_stack, asked, known, referenced, own FROM reachability"
        ):
            reachability[site] = Reachability(*counts)
    pointers = {}
    # Nor was memory searched then.
    if run("SELECT 1 FROM sqlite_master WHERE name = 'pointer_holders'").fetchone() is not None:
        holders: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
        for site, what, objects in run(
            "SELECT site, what, objects FROM pointer_holders ORDER BY site, position"
        ):
            holders[site].append((what, objects))
        for site, *counts in run("SELECT site, searched, unreferenced, referenced FROM pointers"):
            searched, unreferenced, referenced = counts
            pointers[site] = PointersTo(searched, unreferenced, referenced, tuple(holders[site]))
    samples = {}
    # Nor were stacks sampled then.
    if run("SELECT 1 FROM sqlite_master WHERE name = 'stack_samples'").fetchone() is not None:
        for site, call_site, *counts in run(
            "SELECT site, call_site, walked, different, shown FROM stack_samples"
        ):
            samples[site] = StackSample(frames[call_site], *counts)
    sites = [
        TracedSite(
            allocator,
            tuple(stacks[number]),
            tuple(tallies[number]),
            requested,
            _Kept(allocations, *places[number]) if number in places else (),
            reachability.get(number),
            samples.get(number),
            pointers.get(number),
        )
        for number, allocator, requested in run(
            "SELECT id, allocator, requested_bytes FROM sites ORDER BY id"
        )
    ]
    # As capture orders them.
    return tuple(
        sorted(
            sites,
            key=lambda site: site.outstanding.size_bytes,
            reverse=True,
        )
    )


_WITH_HOLDERS = (
    "SELECT address, size_bytes, requested_bytes, allocated_at_ns, cycle, pid, comm, holder "
    "FROM allocations WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
)
_WITHOUT_HOLDERS = _WITH_HOLDERS.replace(", holder", "")


class _AllocationTable:
    """Table ``allocations``, open as long as a session refers to it."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self.database = database
        # The first files of this version were written before holders were known.
        columns = [row[1] for row in database.execute("PRAGMA table_info(allocations)")]
        self._query = _WITH_HOLDERS if "holder" in columns else _WITHOUT_HOLDERS
        finalize(self, database.close)

    def read(self, first: int, number: int) -> tuple[Allocation, ...]:
        """Return the rows ``first`` and following; those of a site lie together.

        Raises UsageError where the file turns out to be damaged here.
        """
        with _damage_told(self._path):
            last = first + number - 1
            _check_types(self.database, "allocations", f"rowid BETWEEN {first} AND {last}")
            rows = self.database.execute(self._query, (first, last))
            return tuple(Allocation(unsigned(address), *rest) for address, *rest in rows)


class _Kept(Sequence[Allocation]):
    """The kept allocations of one site, read when they are first looked at.

    A report rarely looks: a million of them would take longer to read than all the rest.
    """

    def __init__(self, table: _AllocationTable, first: int, number: int) -> None:
        self._table = table
        self._first = first
        self._number = number
        self._rows: tuple[Allocation, ...] | None = None

    def _all(self) -> tuple[Allocation, ...]:
        if self._rows is None:
            self._rows = self._table.read(self._first, self._number)
        return self._rows

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, index: int) -> Allocation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Allocation]: ...
    def __getitem__(self, index: int | slice) -> Allocation | Sequence[Allocation]:
        return self._all()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (tuple, _Kept)) and self._all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all())


def _read_trust(database: sqlite3.Connection, row: _Row, cycles: int) -> Trust:
    run = database.execute
    lost = dict(run("SELECT reason, number FROM losses").fetchall())
    notes = _list(database, "SELECT text FROM notes ORDER BY position")
    if not row.finished:
        note, missing = _cut_short(row.planned_cycles, cycles)
        notes.append(note)
        lost[FINAL_WAIT_CUT_SHORT] = 1
        if missing:
            lost[CYCLES_CUT_OFF] = missing
    elif row.planned_cycles is not None and CYCLES_CUT_OFF not in lost:
        # Captures did not say themselves at first what cut them off. Those that followed several
        # modules planned for each of them as many cycles as were to come of all together.
        modules = 1 + row.target_name.count(",") if row.target_kind == "module" else 1
        missing = row.planned_cycles // modules - cycles
        if missing > 0:
            lost[CYCLES_CUT_OFF] = missing
    return Trust(
        lost,
        dict(run("SELECT reason, number FROM repairs").fetchall()),
        dict(run("SELECT event, number FROM observations").fetchall()),
        dict(run("SELECT event, how FROM means").fetchall()),
        {
            name: WitnessState.parse(state)
            for name, state in run("SELECT name, state FROM witnesses")
        },
        tuple(notes),
    )


def _cut_short(planned: int | None, saved: int) -> tuple[str, int]:
    """What to tell of a session whose capture was killed, and how many cycles it lacks."""
    how = "the capture was cut short (killed, the disk full, or the machine went down)"
    if planned is not None and saved >= planned:
        return f"{how} after its last cycle: frees that came late are missing", 0
    of = "" if planned is None else f" of {planned}"
    kept = {0: "no cycle is", 1: "cycle 1 is"}.get(saved, f"cycles 1 to {saved} are")
    note = f"{how} in cycle {saved + 1}{of}: {kept} saved, cycle {saved + 1} is missing"
    return note, 1 if planned is None else planned - saved


def _read_circumstances(database: sqlite3.Connection, row: _Row) -> Circumstances:
    run = database.execute
    meminfo: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for sample, name, size in run("SELECT sample, field, size_bytes FROM sample_meminfo"):
        meminfo[sample][name] = size
    return Circumstances(
        kleak_version=row.kleak_version,
        host=row.host,
        started_at=row.started_at,
        read_at_ns=row.read_at_ns,
        scope=tuple(_list(database, "SELECT value FROM scope ORDER BY position")),
        planned_cycles=row.planned_cycles,
        finished=bool(row.finished),
        build_ids=dict(run("SELECT module, build_id FROM build_ids").fetchall()),
        settings=tuple(
            Setting(changed, before, during, bool(restored))
            for changed, before, during, restored in run(
                "SELECT path, before, during, restored FROM settings ORDER BY position"
            )
        ),
        samples=tuple(
            MemorySample(time_ns, moment, cycle, Tally(count, size), meminfo.get(position, {}))
            for position, time_ns, moment, cycle, count, size in run(
                "SELECT position, time_ns, moment, cycle, outstanding, outstanding_bytes "
                "FROM samples ORDER BY position"
            )
        ),
        answers=tuple(
            Answer(witness, taken_at_ns, zlib.decompress(packed).decode())
            for witness, taken_at_ns, packed in run(
                "SELECT witness, taken_at_ns, text_zlib FROM answers ORDER BY position"
            )
        ),
    )
