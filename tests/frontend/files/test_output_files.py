"""What outputs do to what lies where they go."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from kleak.errors import KleakError, UnsupportedError, UsageError
from kleak.files.output_files import check_place, refuse_clashes, write_file, write_files
from tests.support.paths import TESTS
from tests.support.saved import saved_files

LEAKY = str(next(path for path in saved_files() if path.stem == "6.12--leaky"))
OLDER = str(next(path for path in saved_files() if path.stem == "6.1--leaky"))
TAR = str(TESTS / "data/snapshots/6.12--vmalloc-kmalloc-and-page-leak.tar.gz")
KLEAK = [sys.executable, "-m", "kleak"]

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for nodes and owners")


def kleak(*arguments, **how):
    how = {"capture_output": True, "text": True, "timeout": 60, **how}
    return subprocess.run([*KLEAK, *map(str, arguments)], check=False, **how)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def inode(path: Path) -> int:
    return path.stat().st_ino


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A device that is always full, as /dev/full is."""
    path = tmp_path / "full"
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
    return path


# --- regular files


def test_a_new_file_is_its_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        write_file(str(tmp_path / "new"), b"text")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_file_that_is_replaced_keeps_its_mode_and_is_never_half(tmp_path):
    path = tmp_path / "report"
    path.write_bytes(b"older")
    path.chmod(0o640)
    with path.open("rb") as reader:
        write_file(str(path), b"newer")
        assert reader.read() == b"older"
    assert path.read_bytes() == b"newer"
    assert mode(path) == 0o640


@root
def test_a_file_that_is_replaced_keeps_its_owner(tmp_path, monkeypatch):
    monkeypatch.setenv("SUDO_UID", "1237")
    monkeypatch.setenv("SUDO_GID", "1249")
    path = tmp_path / "report"
    path.write_bytes(b"older")
    os.chown(path, 1259, 1277)
    write_file(str(path), b"newer")
    assert (path.stat().st_uid, path.stat().st_gid) == (1259, 1277)


@root
def test_a_strangers_file_in_a_directory_for_all_is_not_kept(tmp_path):
    """As /tmp is one: who put it there would read what root writes."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    path = shared / "report"
    path.write_bytes(b"")
    path.chmod(0o666)
    os.chown(path, 1259, 1277)
    write_file(str(path), b"newer")
    assert (path.stat().st_uid, mode(path)) == (0, 0o600)


def test_links_are_followed(tmp_path):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there/real", tmp_path / "link"
    link.symlink_to(tmp_path / "further")
    (tmp_path / "further").symlink_to("there/real")
    for text in (b"made", b"replaced"):
        write_file(str(link), text)
        assert link.is_symlink()
        assert not real.is_symlink()
        assert real.read_bytes() == text


def test_a_failure_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "report"
    path.write_bytes(b"older")

    def refused(*names, **directories):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(UnsupportedError, match=r"/report: No space left on device$"):
        write_file(str(path), b"newer")
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


# --- anything else


@root
def test_a_device_is_written_to_and_its_failure_has_one_status(full):
    for arguments in (
        ("report", LEAKY, "--format", "json", "-o", full),
        ("diff", LEAKY, LEAKY, "--json", full),
        ("analyze", TAR, "--ktap", full),
    ):
        done = kleak(*arguments)
        assert stat.S_ISCHR(full.stat().st_mode)
        assert (done.returncode, done.stderr) == (3, f"kleak: {full}: No space left on device\n")
    assert "leaks:" in done.stdout  # the report is printed all the same


def test_a_fifo_is_written_to(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write_file(str(path), b"text" * 99999)
    reader.join(10)
    assert read == [b"text" * 99999]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_descriptor_is_written_to_where_it_stands(tmp_path):
    link = tmp_path / "stdout"
    link.symlink_to("/proc/self/fd/1")
    output = tmp_path / "output"
    with output.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        kleak("report", LEAKY, "--format", "csv", "-o", link, stdout=file, capture_output=False)
        file.write(b"after\n")
    lines = output.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert lines[1].startswith("rank,")
    assert link.is_symlink()


def test_process_substitution(tmp_path):
    script = '"$@" -o >(cat >"$0.read"); while [ ! -s "$0.read" ]; do sleep 0.1; done'
    words = [*KLEAK, "report", LEAKY, "--format", "json"]
    done = subprocess.run(
        ["bash", "-c", script, str(tmp_path / "out"), *words],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert json.loads((tmp_path / "out.read").read_text())["schema"] == "kleak.report/1"


# --- what is refused, before anything is done


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", r"^\. is a directory"),
        (".", "is a directory"),
        ("missing/x", r"no directory \S+/missing to write to"),
        ("file/x", "file/x: Not a directory"),
        ("loop", "loop: Too many levels of symbolic links"),
        ("/proc/self/fd/987", "Bad file descriptor"),
        ("x" * 300, "File name too long"),
    ],
)
def test_where_nothing_can_be_written(tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=says):
        check_place(name)


@root
def test_what_may_not_be_written_is_denied():
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        (Path(directory) / "rodir").mkdir(0o555)
        shutil.copyfile(LEAKY, Path(directory) / "s.kleak")
        script = (
            "import os, sys; from kleak.cli import main; os.setgid(65534); os.setuid(65534);"
            "sys.argv = 'kleak diff s.kleak s.kleak --json rodir/x.json'.split(); main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=directory, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "kleak: rodir/x.json: Permission denied\n")
    assert done.stdout == ""  # it is told before the work


def test_two_outputs_in_one_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("missing")
    os.mkfifo(tmp_path / "fifo")
    for one, other in (("missing", "./missing"), ("missing", "link")):
        with pytest.raises(UsageError, match=f"^-o {one} and --json {other} are one file"):
            refuse_clashes({"-o": one, "--json": other}, ())
    for name in ("-", "fifo", None, "/dev/null"):
        refuse_clashes({"-o": name, "--json": name}, ())


def test_an_output_onto_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("read").write_text("input")
    Path("link").hardlink_to("read")
    with pytest.raises(UsageError, match="--json link would replace what is read"):
        refuse_clashes({"--json": "link"}, ["read"])
    # A module's name, and a net plan in words.
    refuse_clashes({"--json": "no-file"}, ["no-file", "link set kleak0 up; " * 30])


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "s.kleak", "--format", "json", "-o", "s.kleak"),
        ("report", LEAKY, "--baseline", "s.kleak", "--format", "json", "-o", "s.kleak"),
        ("diff", LEAKY, "s.kleak", "--json", "s.kleak"),
        ("analyze", "vmallocinfo", "vmallocinfo", "--ktap", "vmallocinfo"),
        ("analyze", "vmallocinfo", "vmallocinfo", "--ktap", "x", "--json", "x"),
    ],
)
def test_commands_refuse_to_lose_a_file(tmp_path, arguments):
    (tmp_path / "s.kleak").write_bytes(Path(LEAKY).read_bytes())
    data = TESTS / "data"
    (tmp_path / "vmallocinfo").write_bytes((data / "vmallocinfo/6.12--before.txt").read_bytes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = kleak(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- several


def test_one_that_fails_does_not_keep_the_others(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "three").mkdir()
    names = [str(tmp_path / name) for name in ("one", "two", "three")]
    failure = write_files((name, "text") for name in names)
    assert isinstance(failure, KleakError)
    assert str(failure) == f"{names[0]}: Is a directory; {names[2]}: Is a directory"
    assert (tmp_path / "two").read_text() == "text"


@pytest.mark.parametrize(
    ("command", "text"),
    [(("analyze", TAR), "kleak.report/1"), (("diff", LEAKY, OLDER), "kleak.diff/1")],
)
def test_files_are_written_though_nobody_reads_the_rest(tmp_path, command, text):
    reader, writer = os.pipe()
    os.close(reader)
    kleak(*command, "--json", tmp_path / "x.json", stdout=writer, stderr=writer,
          capture_output=False)  # fmt: skip
    os.close(writer)
    assert json.loads((tmp_path / "x.json").read_text())["schema"] == text
