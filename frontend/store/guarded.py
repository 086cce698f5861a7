"""A stranger's session file as a database that can do no harm.

SQL in a file acts as soon as the file is read: a view can count for ever where a table was
expected, and call functions. So only the tables and columns that kleak writes are let through,
before any other query, and queries may take no more steps than a file of its size needs.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import BinaryIO
from weakref import finalize

from kleak.errors import UsageError
from kleak.files.input_files import open_input
from kleak.store import schema
from kleak.store.header import starts_a_session
from kleak.store.unnamed import open_unnamed, pieces

_MOST_BYTES = 1 << 30
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
# A million outstanding allocations take 3 steps of SQLite's machine for each byte of the file.
_STEPS_PER_BYTE = 64
_STEPS_AT_LEAST = 10_000_000
_STEPS_BETWEEN = 100_000
_ROLLBACK_MODE = b"\1\1"  # at offset 18; a log, 2, would need files beside it
# How kleak declares a table: plain columns and keys.
_COLUMN = (
    r"\w+ (?:INTEGER|TEXT|REAL|BLOB)(?: PRIMARY KEY)?(?: CHECK \(id = 1\))?(?: NOT NULL)?"
    r"(?: REFERENCES \w+ \(\w+\))?"
)
_TABLE = re.compile(
    rf"CREATE TABLE \w+ \(\s*{_COLUMN}(?:,\s*{_COLUMN})*"
    r"(?:,\s*PRIMARY KEY \(\w+(?:, \w+)*\))?\s*\)(?: WITHOUT ROWID)?"
)


class Guarded:
    """The copy of a session file, ``database``, closed with this object."""

    def __init__(self, path: Path) -> None:
        """Copy ``path`` and open the copy.

        Raises UsageError where it is no session, OSError and sqlite3.Error where it cannot be read.
        """
        with open_input(path) as file:
            head = file.read(100)
            if not starts_a_session(head):
                raise UsageError(f"{path} is no kleak session")
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_BYTES:
                raise UsageError(f"{path} is larger than {_MOST_BYTES >> 30} GiB")
            _refuse_journal(path, file)
            head = head[:18] + _ROLLBACK_MODE + head[20:]
            self.database, copy = open_unnamed(chain([head], pieces(file, len(head), size)))
        copy.close()
        finalize(self, self.database.close)
        self._left = _STEPS_AT_LEAST + _STEPS_PER_BYTE * size
        self.database.set_progress_handler(self._step, _STEPS_BETWEEN)
        with self.checked():
            self.database.execute("PRAGMA trusted_schema = OFF")
            self.database.execute("PRAGMA cell_size_check = ON")

    def _step(self) -> bool:
        self._left -= _STEPS_BETWEEN
        return self._left < 0

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Around queries: raise what stopped them."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if self._left < 0:
                raise sqlite3.OperationalError("it takes longer than its size accounts for") from (
                    error
                )
            if error.args == ("interrupted",):
                # By a signal: what its handler raises within _step() is lost in SQLite.
                raise KeyboardInterrupt from None
            raise


def _refuse_journal(path: Path, file: BinaryIO) -> None:
    """Raise UsageError where a writer left the file half written.

    Kleak's own never does. Another user's journal is of no writer of this file.
    """
    try:
        with open_input(path.with_name(f"{path.name}-journal"), links=False) as journal:
            same = os.fstat(journal.fileno()).st_uid == os.fstat(file.fileno()).st_uid
            if same and journal.read(len(_JOURNAL_MAGIC)) == _JOURNAL_MAGIC:
                raise UsageError(
                    f"{path}: a journal of SQLite lies beside it, so it may be half written; "
                    "kleak never leaves one, and follows none"
                )
    except FileNotFoundError:
        pass


@cache
def columns() -> dict[str, dict[str, str]]:
    """For each table, for each column, SQL that is true of a value of another type than it has."""
    database = sqlite3.connect(":memory:")
    database.executescript(schema.TABLES)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
    found: dict[str, dict[str, str]] = {}
    for table in tables:
        found[table] = {}
        for _, column, kind, not_null, _, key in database.execute(f"PRAGMA table_info({table})"):
            types = [kind.lower(), *(() if not_null or key else ("null",))]
            found[table][column] = f"typeof({column}) NOT IN ({', '.join(map(repr, types))})"
    database.close()
    return found


def check(database: sqlite3.Connection) -> None:
    """Raise ValueError where there is anything but tables that kleak writes, sqlite3.DatabaseError
    where they are damaged.

    Anything else is a view, a trigger, an index, a virtual table, a column that is computed, or a
    condition: quick_check would evaluate it.
    """
    for kind, name, page, text in database.execute(
        "SELECT type, name, rootpage, sql FROM sqlite_master"
    ).fetchall():
        if kind == "index" and text is None:
            continue  # of a key, which SQLite makes by itself
        if kind != "table" or not page or name not in columns() or not _TABLE.fullmatch(str(text)):
            raise ValueError(f"no kleak writes the {kind} {name}")
        for row in database.execute(f"PRAGMA table_info({name})"):
            if row[1] not in columns()[name]:
                raise ValueError(f"no kleak writes the column {row[1]} of table {name}")
    problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(str(problem).splitlines()[-1])
