"""An SQLite database in a file that has no name: nobody can put a journal or a log beside it.

SQLite believes what lies beside the file that it opens. A journal there may name a further file,
which SQLite deletes after it has rolled back. So it never opens a file where others can write:
what is read is copied to a place of kleak's own first, what is written is copied from there.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from kleak.files.private_place import private_place

_CHUNK_BYTES = 1 << 20


def open_unnamed(content: Iterable[bytes] = ()) -> tuple[sqlite3.Connection, BinaryIO]:
    """Return a database that begins as ``content``, and its file. Raises OSError, sqlite3.Error.

    Where ``content`` is no database, the first query raises. The file is gone with the connection.
    """
    with tempfile.TemporaryDirectory(prefix="kleak-", dir=private_place()) as directory:
        path = os.path.join(directory, "session")
        file = open(path, "x+b", buffering=0)  # noqa: SIM115 (it goes to the caller)
        try:
            for piece in content:
                file.write(piece)
            database = sqlite3.connect(path, isolation_level=None)
            try:
                # It needs no journal of its own: a copy that is half written is thrown away.
                database.execute("PRAGMA journal_mode = OFF")
                database.execute("PRAGMA synchronous = OFF")
                database.execute("PRAGMA temp_store = MEMORY")
            except BaseException:
                database.close()
                raise
        except BaseException:
            file.close()
            raise
    return database, file


def pieces(file: BinaryIO, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of ``file`` from ``begin`` to ``end``, or to its end."""
    file.seek(begin)
    left = sys.maxsize if end is None else end - begin
    while left > 0 and (piece := file.read(min(left, _CHUNK_BYTES))):
        left -= len(piece)
        yield piece
