"""Sessions that strangers made, and what strangers put beside them."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest

from kleak.errors import UsageError
from kleak.files.private_place import private_place
from kleak.store.reader import read_session
from kleak.store.writer import SessionWriter
from tests.support.samples import session, site
from tests.support.saved import saved_files

SAMPLE = next(path for path in saved_files() if path.stem == "6.18--pipes-2")
JOURNAL_MAGIC = bytes([0xD9, 0xD5, 0x05, 0xF9, 0x20, 0xA1, 0x63, 0xD7])
NOBODY = 65534

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")


def super_journal(victim: Path, size: int, page: int = 4096) -> bytes:
    """A journal of a file of ``size`` bytes that has SQLite delete ``victim``."""
    header = JOURNAL_MAGIC + struct.pack(">IIIII", 0, 1, size // page, 512, page)
    name = os.fsencode(victim)
    number = struct.pack(">I", 0x40000000 // page + 1)
    end = struct.pack(">II", len(name), sum(name)) + JOURNAL_MAGIC
    return header.ljust(512, b"\0") + number + name + end


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(SAMPLE, tmp_path / "s.kleak"))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    victim = tmp_path / "victim"
    victim.write_text("somebody's")
    return victim


def change(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        database.execute(statement)
    database.close()


# --- what lies beside it


def test_the_journal_of_these_tests_deletes_what_sqlite_finds_in_it(path, victim):
    path.with_name("s.kleak-journal").write_bytes(super_journal(victim, path.stat().st_size))
    change(path, "SELECT count(*) FROM sqlite_master")
    assert not victim.exists()


@pytest.mark.parametrize("reader", [["report"], ["report", str(SAMPLE), "--baseline"], ["diff"]])
def test_reading_a_session_deletes_nothing(path, victim, reader):
    journal = path.with_name("s.kleak-journal")
    journal.write_bytes(super_journal(victim, path.stat().st_size))
    words = [*reader, str(path), *([str(SAMPLE)] if reader == ["diff"] else [])]
    done = subprocess.run(
        [sys.executable, "-m", "kleak", *words], capture_output=True, text=True, check=False
    )
    assert victim.exists()
    assert journal.exists()
    assert done.returncode == 2
    assert done.stderr == (
        f"kleak: {path}: a journal of SQLite lies beside it, so it may be half written; kleak "
        "never leaves one, and follows none\n"
    )


def test_what_is_no_journal_is_no_matter(path):
    path.with_name("s.kleak-journal").write_bytes(b"stale")
    assert read_session(path).sites


@root
def test_another_users_journal_is_no_matter(path, victim):
    journal = path.with_name("s.kleak-journal")
    journal.write_bytes(super_journal(victim, path.stat().st_size))
    os.chown(journal, NOBODY, NOBODY)
    assert read_session(path).sites
    assert victim.exists()


@pytest.mark.parametrize("name", ["s.kleak-journal", "s.kleak-wal", ".kleak-session-journal"])
def test_journals_planted_between_saves_are_not_followed(tmp_path, victim, name):
    path = tmp_path / "s.kleak"
    with SessionWriter(path) as writer:
        writer.save(session(site([3]), cycles=1))
        planted = tmp_path / name
        planted.write_bytes(super_journal(victim, path.stat().st_size))
        writer.save(session(site([3] * 2), cycles=2))
    assert victim.exists()
    planted.unlink()
    assert len(read_session(path).cycles) == 2


def test_a_session_in_wal_mode_leaves_nothing_beside_it(path):
    change(path, "PRAGMA journal_mode = WAL")
    before = sorted(path.parent.iterdir())
    assert read_session(path).sites
    assert sorted(path.parent.iterdir()) == before == [path]


# --- what is in it

ENDLESS = (
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
    "SELECT x, 'n' FROM c WHERE x < 0"
)


@pytest.mark.parametrize(
    "statements",
    [
        ("DROP TABLE notes", f"CREATE VIEW notes (position, text) AS {ENDLESS}"),
        ("CREATE VIEW more AS SELECT 1",),
        ("CREATE TRIGGER t BEFORE DELETE ON notes BEGIN SELECT 1; END",),
        ("CREATE INDEX i ON notes (length(text))",),
        ("CREATE TABLE other (x INTEGER)",),
        ("ALTER TABLE notes ADD COLUMN x INTEGER",),
        ("ALTER TABLE notes ADD COLUMN source TEXT AS (text || text)",),
        (
            "DROP TABLE notes",
            "CREATE TABLE notes (position INTEGER PRIMARY KEY, "
            "text TEXT NOT NULL CHECK (length(zeroblob(999999999)) > position))",
        ),
        (
            "DROP TABLE notes",
            "CREATE TABLE notes (position INTEGER PRIMARY KEY, text TEXT AS (hex(position)))",
        ),
        ("DROP TABLE notes", "CREATE VIRTUAL TABLE notes USING fts5(position, text)"),
    ],
    ids=lambda statements: statements[-1][:40],
)
def test_only_the_tables_of_a_session_are_read(path, statements):
    change(path, *statements)
    began = time.process_time()
    with pytest.raises(UsageError, match=r"the session is damaged .no kleak writes the "):
        read_session(path)
    assert time.process_time() - began < 2


def test_steps_are_bounded_and_a_signal_ends_them(path, monkeypatch):
    """Were there a query without end, as there was once."""
    monkeypatch.setattr("kleak.store.guarded.check", lambda database: None)
    monkeypatch.setattr("kleak.store.reader.check", lambda database: None)
    change(path, "DROP TABLE notes", f"CREATE VIEW notes (position, text) AS {ENDLESS}")
    with pytest.raises(UsageError, match="it takes longer than its size accounts for"):
        read_session(path)
    monkeypatch.setattr("kleak.store.guarded._STEPS_AT_LEAST", 1 << 60)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            read_session(path)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_answer_that_unpacks_without_end(path):
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("INSERT INTO answers VALUES (9999, 'dmesg', 0, ?)", (packed,))
    database.close()
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="it unpacks to more than"):
            read_session(path)
        assert tracemalloc.get_traced_memory()[1] < 280 << 20
    finally:
        tracemalloc.stop()


def test_as_many_sites_and_cycles_as_no_capture_has(path):
    """A megabyte of each would make a table of gigabytes."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN")
    database.execute("DELETE FROM cycles")
    database.executemany(
        "INSERT INTO cycles VALUES (?, 0, 0, NULL, NULL)", ((i,) for i in range(1, 20_001))
    )
    database.executemany(
        "INSERT OR REPLACE INTO tallies VALUES (?, 1, 1, 1, 0, 0)", ((i,) for i in range(20_000))
    )
    database.execute("COMMIT")
    database.close()
    with pytest.raises(UsageError, match="are too many"):
        read_session(path)


# --- what it is


def test_a_fifo_a_device_and_a_directory_are_no_sessions(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(UsageError, match=r"is no regular file|is a directory"):
            read_session(name)


# --- where it is put


@root
@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o755], ids=oct)
def test_in_a_directory_of_another_user_nothing_of_others_is_lost(tmp_path, victim, mode):
    """That user may put anything there at any moment; only the names there are lost."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(mode)
    os.chown(theirs, NOBODY, NOBODY)
    path = theirs / "s.kleak"
    with SessionWriter(path) as writer:
        writer.save(session(site([3]), cycles=1))
        path.unlink()
        path.symlink_to(victim)
        writer.save(session(site([3] * 2), cycles=2))
    assert victim.read_text() == "somebody's"
    assert len(read_session(path).cycles) == 2
    assert (path.lstat().st_uid, path.lstat().st_mode & 0o7777) == (os.geteuid(), 0o600)


@root
def test_a_writer_keeps_to_its_directory(tmp_path):
    theirs, roots = tmp_path / "theirs", tmp_path / "roots"
    theirs.mkdir()
    roots.mkdir()
    with SessionWriter(theirs / "s.kleak") as writer:
        writer.save(session(site([3]), cycles=1))
        theirs.rename(tmp_path / "moved")
        theirs.symlink_to(roots)
        writer.save(session(site([3] * 2), cycles=2))
    assert list(roots.iterdir()) == []
    assert len(read_session(tmp_path / "moved/s.kleak").cycles) == 2


@root
def test_temporary_files_are_where_nobody_can_swap_them(tmp_path, monkeypatch):
    """sudo may hand on TMPDIR."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(theirs))
    tmp_path.chmod(0o755)
    assert private_place() == str(theirs)
    os.chown(theirs, NOBODY, NOBODY)
    assert private_place() == "/tmp"
    os.chown(theirs, 0, 0)
    theirs.chmod(0o777)
    assert private_place() == "/tmp"
    theirs.chmod(0o1777)
    assert private_place() == str(theirs)
