"""Where sessions come to lie: an older one stays until there is a new one, one kleak at a time."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kleak.commands.options.session import SessionOptions, open_session
from kleak.errors import KleakError, UnsupportedError, UsageError
from kleak.model.session import Frame
from kleak.store.reader import read_session
from kleak.store.writer import SessionWriter
from tests.support.samples import session, site
from tests.support.saved import everything


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.kleak"


@pytest.fixture
def older(path: Path) -> bytes:
    """What an older session at ``path`` is."""
    with SessionWriter(path) as writer:
        writer.save(everything())
    return path.read_bytes()


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_an_older_session_stays_until_a_cycle_is_saved(path, older):
    with SessionWriter(path) as writer:
        writer.save(session(cycles=0))
        assert path.read_bytes() == older
        writer.save(session(site([3]), cycles=1))
        assert len(read_session(path).cycles) == 1
        writer.save(session(site([3] * 4), cycles=4))
        assert len(read_session(path).cycles) == 4
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize("error", [UsageError("no such scope"), KeyboardInterrupt()])
def test_a_capture_without_a_cycle_leaves_the_older_session(path, older, error):
    def capture():
        with SessionOptions(str(path), 1).saved("x") as writer:
            writer.save(session(cycles=0))
            raise error

    with pytest.raises(type(error)):
        capture()
    assert path.read_bytes() == older
    assert names(path.parent) == [path.name]


def test_an_empty_file_is_left_too(path):
    path.touch()
    path.chmod(0o644)
    with pytest.raises(UsageError), SessionOptions(str(path), 1).saved("x"):
        raise UsageError
    assert path.read_bytes() == b""
    with SessionWriter(path) as writer:
        writer.save(everything())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_killed_kleak_left_beside_it_is_no_trouble(path, older):
    for name in (f".{path.name}.new", f".{path.name}.new-journal", f"{path.name}-journal"):
        path.with_name(name).write_bytes(b"half")
    with SessionWriter(path) as writer:
        writer.save(session(cycles=4))
    assert len(read_session(path).cycles) == 4
    assert names(path.parent) == [path.name]


@pytest.fixture
def torn(path):
    """At ``path``, what a kleak leaves that is killed in a save."""
    child = os.fork()
    if child == 0:
        try:
            writer = SessionWriter(path)
            writer.save(session(site([3]), cycles=1))
            writer._database.execute("PRAGMA cache_size = 1")
            writer._database.execute("BEGIN IMMEDIATE")
            frames = [(Frame(None, f"f{i}" * 50, i),) for i in range(999)]
            writer._write(session(*(site([3], frames=one) for one in frames)))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert f"{path.name}-journal" in names(path.parent)


def test_the_older_session_is_restored_before_its_journal_goes(path, torn):
    with SessionWriter(path):
        pass
    assert names(path.parent) == [path.name]
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert len(read_session(path).sites) == 1


def test_a_journal_that_cannot_be_used_does_not_reach_the_new_session(path, torn, monkeypatch):
    monkeypatch.setattr("kleak.store.replace._restore", lambda path: None)
    with SessionWriter(path) as writer:
        writer.save(session(site([3] * 4), cycles=4))
    assert names(path.parent) == [path.name]
    assert len(read_session(path).cycles) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_an_older_sessions_owner_stays_and_it_is_private(path, older, monkeypatch):
    monkeypatch.setenv("SUDO_UID", "1237")
    monkeypatch.setenv("SUDO_GID", "1249")
    path.chmod(0o644)
    os.chown(path, 1259, 1277)
    with SessionWriter(path) as writer:
        writer.save(session(cycles=4))
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1259, 1277, 0o600)


def test_a_link_is_followed(path, tmp_path):
    (tmp_path / "real").mkdir()
    path.symlink_to("real/session.kleak")
    for cycles in (3, 4):  # made, then replaced
        with SessionWriter(path) as writer:
            writer.save(session(cycles=cycles))
        assert path.is_symlink()
        assert len(read_session(tmp_path / "real/session.kleak").cycles) == cycles
    assert names(tmp_path / "real") == ["session.kleak"]


def test_a_session_needs_a_file(path):
    os.mkfifo(path)
    with pytest.raises(UsageError, match="is no regular file, and a session needs one"):
        SessionWriter(path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    with pytest.raises(UsageError, match="-o -: a session needs a file"):
        SessionWriter(Path("-"))


# --- two at once


@pytest.mark.parametrize("before", [False, True], ids=["none before", "an older one before"])
@pytest.mark.parametrize("cycles", [0, 1], ids=["no cycle yet", "a cycle saved"])
def test_a_second_kleak_is_refused(path, before, cycles):
    if before:
        with SessionWriter(path) as writer:
            writer.save(everything())
    script = (
        "import sys; from pathlib import Path; from kleak.store.writer import SessionWriter;"
        "SessionWriter(Path(sys.argv[1]))"
    )
    with SessionWriter(path) as writer:
        writer.save(session(cycles=cycles))
        read_session(path)  # which closes a descriptor of the file in this process
        second = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
        )
        assert f"UsageError: {path} is in use by another kleak: -o names another place" in (
            second.stderr
        ).replace("kleak.errors.", "")
        writer.save(session(site([3] * 5), cycles=5))
    assert len(read_session(path).cycles) == 5
    with SessionWriter(path):
        pass


def test_default_names_of_one_second_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20261123T101500")
    writers = [open_session(None, "x*y") for _ in range(3)]
    assert [str(writer.path) for writer in writers] == [
        "kleak-x-y-20261123T101500.kleak",
        "kleak-x-y-20261123T101500-2.kleak",
        "kleak-x-y-20261123T101500-3.kleak",
    ]
    for number, writer in enumerate(writers, start=1):
        with writer:
            writer.save(session(cycles=number))
    for number, writer in enumerate(writers, start=1):
        assert len(read_session(writer.path).cycles) == number


def test_no_default_session_where_the_current_directory_takes_no_file(monkeypatch):
    monkeypatch.chdir("/proc/self")  # nobody makes a file there, root neither
    with pytest.raises(KleakError, match=r"current directory: kleak-x-.*-o FILE names another"):
        open_session(None, "x")


# --- a full disk


def fill(writer: SessionWriter, *, cycles_before: int = 0) -> None:
    """Save some cycles, then more than there is room for."""
    writer.save(session(cycles=cycles_before))
    pages = writer._database.execute("PRAGMA page_count").fetchone()[0]
    writer._database.execute(f"PRAGMA max_page_count = {pages + 2}")
    many = (site([3] * 4, frames=(Frame(None, f"f{i}" * 50, i),)) for i in range(999))
    writer.save(session(*many, cycles=4))


def test_a_full_disk_leaves_the_older_session_and_says_so(path, older):
    with (
        pytest.raises(UnsupportedError, match=r"disk is full \(the older one stays\)$"),
        SessionOptions(str(path), 1).saved("x") as writer,
    ):
        fill(writer)
    assert path.read_bytes() == older
    assert names(path.parent) == [path.name]


def test_a_full_disk_leaves_the_cycles_that_were_saved_and_says_so(path, older, capsys):
    with (
        pytest.raises(UnsupportedError, match=r"disk is full \(it ends with cycle 2\)$"),
        SessionOptions(str(path), 1).saved("x") as writer,
    ):
        fill(writer, cycles_before=2)
    assert len(read_session(path).cycles) == 2
    assert capsys.readouterr().err == (
        f"session: {path}, up to cycle 2 (kleak report shows it again)\n"
    )


def test_a_full_disk_in_the_first_cycle(path):
    with (
        pytest.raises(UnsupportedError, match=r"disk is full \(no cycle is saved\)$"),
        SessionOptions(str(path), 1).saved("x") as writer,
    ):
        fill(writer)
    assert names(path.parent) == []
