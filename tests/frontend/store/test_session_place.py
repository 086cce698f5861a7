"""Where sessions come to lie: an older one stays until there is a new one, one kleak at a time."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kleak.commands.options.session import SessionOptions, open_session
from kleak.errors import KleakError, UnsupportedError, UsageError
from kleak.files.output_files import Place
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


def test_a_session_is_replaced_only_if_that_is_said(path, older):
    with pytest.raises(UsageError, match=r"session.kleak exists: --force replaces it"):
        SessionWriter(path)
    assert path.read_bytes() == older
    with SessionWriter(path, replace=True) as writer:
        writer.save(session(site([3] * 4), cycles=4))
    assert len(read_session(path).cycles) == 4
    assert names(path.parent) == [path.name]


def test_an_older_session_stays_until_a_cycle_is_saved(path, older):
    with SessionWriter(path, replace=True) as writer:
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
        with SessionOptions(str(path), True, 9).saved("x") as writer:
            writer.save(session(cycles=0))
            raise error

    with pytest.raises(type(error)):
        capture()
    assert path.read_bytes() == older
    assert names(path.parent) == [path.name]


def test_a_capture_without_a_cycle_leaves_nothing(path):
    def capture():
        with SessionOptions(str(path), False, 9).saved("x") as writer:
            writer.save(session(cycles=0))
            assert read_session(path).cycles == ()
            raise UsageError

    with pytest.raises(UsageError):
        capture()
    assert names(path.parent) == []


def test_an_empty_file_is_left_too(path):
    """As mktemp makes it, it needs no --force."""
    path.touch()
    path.chmod(0o644)
    with pytest.raises(UsageError), SessionOptions(str(path), False, 9).saved("x"):
        raise UsageError
    assert path.read_bytes() == b""
    with SessionWriter(path) as writer:
        writer.save(everything())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_an_older_sessions_owner_stays_and_it_is_private(path, older, monkeypatch):
    monkeypatch.setenv("SUDO_UID", "1237")
    monkeypatch.setenv("SUDO_GID", "1249")
    path.chmod(0o644)
    os.chown(path, 1259, 1277)
    with SessionWriter(path, replace=True) as writer:
        writer.save(session(cycles=4))
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1259, 1277, 0o600)


def test_a_link_is_followed(path, tmp_path):
    (tmp_path / "real").mkdir()
    path.symlink_to("real/session.kleak")
    for cycles in (3, 4):  # made, then replaced
        with SessionWriter(path, replace=True) as writer:
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


def test_a_second_kleak_is_refused_and_with_force_each_save_is_whole(path):
    with SessionWriter(path) as writer:
        writer.save(session(cycles=0))
        with pytest.raises(UsageError, match="exists: --force replaces it"):
            SessionWriter(path)
        with SessionWriter(path, replace=True) as second:
            writer.save(session(site([3] * 5), cycles=5))
            second.save(session(site([3]), cycles=1))
            assert len(read_session(path).cycles) == 1
            writer.save(session(site([3] * 6), cycles=6))
    assert len(read_session(path).cycles) == 6


def test_two_that_begin_at_once(path, monkeypatch):
    """Between the look and the file that is made another kleak makes its own."""
    create = Place.create

    def late(place, content):
        monkeypatch.setattr(Place, "create", create)
        with SessionWriter(path) as writer:
            writer.save(session(cycles=2))
        create(place, content)

    monkeypatch.setattr(Place, "create", late)
    with pytest.raises(UsageError, match="exists: --force replaces it"):
        SessionWriter(path)
    assert len(read_session(path).cycles) == 2


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


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process may become larger than a small session is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (160_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(writer: SessionWriter, *, cycles_before: int = 0) -> None:
    """Save some cycles, then more than there is room for."""
    writer.save(session(cycles=cycles_before))
    many = (site([3] * 4, frames=(Frame(None, f"f{i}" * 50, i),)) for i in range(999))
    with no_room():
        writer.save(session(*many, cycles=4))


def test_a_full_disk_leaves_the_older_session_and_says_so(path, older):
    with (
        pytest.raises(UnsupportedError, match=r"cannot save .* \(the older one stays\)$"),
        SessionOptions(str(path), path.exists(), 1).saved("x") as writer,
    ):
        fill(writer)
    assert path.read_bytes() == older
    assert names(path.parent) == [path.name]


def test_a_full_disk_leaves_the_cycles_that_were_saved_and_says_so(path, older, capsys):
    with (
        pytest.raises(UnsupportedError, match=r"cannot save .* \(it ends with cycle 2\)$"),
        SessionOptions(str(path), path.exists(), 1).saved("x") as writer,
    ):
        fill(writer, cycles_before=2)
    assert len(read_session(path).cycles) == 2
    assert capsys.readouterr().err == (
        f"session: {path}, up to cycle 2 (kleak report shows it again)\n"
    )


def test_a_full_disk_in_the_first_cycle(path):
    with (
        pytest.raises(UnsupportedError, match=r"cannot save .* \(no cycle is saved\)$"),
        SessionOptions(str(path), path.exists(), 1).saved("x") as writer,
    ):
        fill(writer)
    assert names(path.parent) == []
