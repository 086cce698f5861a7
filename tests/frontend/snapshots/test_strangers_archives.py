"""Archives and files that somebody sent: no waiting, no device, no more memory than allowed."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from kleak.errors import UsageError
from kleak.snapshots.archives import UNREADABLE, Budget, read_file, read_tree
from kleak.snapshots.snapshot_files import read_snapshots

MB = 1 << 20


def test_a_fifo_and_a_device_are_not_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        done = subprocess.run(
            [sys.executable, "-m", "kleak", "triage", str(path)],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr == f"kleak: {path} is no regular file\n"
    assert list(read_tree(tmp_path, Budget())) == []


def test_links_and_devices_in_a_tar_are_no_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("MemTotal: 4 kB\n")
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("../../escaped/meminfo")
            member.type, member.linkname = kind, str(secret)
            archive.addfile(member)
    before = sorted(tmp_path.rglob("*"))
    assert read_file(path, Budget()) == []
    assert sorted(tmp_path.rglob("*")) == before


def test_links_in_a_snapshot_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("MemTotal: 100000 kB\nMemFree: 50000 kB\n")
    snapshot = tmp_path / "snapshots/001"
    snapshot.mkdir(parents=True)
    (snapshot / "manifest").write_text("kleak-snapshot: 1\n")
    (snapshot / "meminfo").symlink_to(outside)
    (snapshot.parent / "002").symlink_to(snapshot)
    [found] = read_snapshots([snapshot.parent])
    assert found.meminfo is None


def _long_attribute(path: Path) -> None:
    with gzip.open(path, "wb", 1) as packed:
        head = tarfile.TarInfo("x")
        head.type, head.size = tarfile.XHDTYPE, 64 * MB
        packed.write(head.tobuf(tarfile.USTAR_FORMAT))
        packed.write(bytes(64 * MB))


def _bzip2_in_zip(path: Path) -> None:
    """A zip of which the directory says 1000 bytes, where 64 MB are packed."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive,
        archive.open("meminfo", "w", force_zip64=True) as member,
    ):
        member.write(bytes(64 * MB))
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize("bomb", [_long_attribute, _bzip2_in_zip])
def test_little_that_becomes_much_takes_little_memory(tmp_path: Path, bomb) -> None:
    bomb(tmp_path / "bomb")
    budget = Budget()
    tracemalloc.start()
    try:
        assert read_file(tmp_path / "bomb", budget) == []
        assert budget.refused
    except (*UNREADABLE, UsageError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * MB


def test_what_is_passed_over_counts_for_all_archives_together(tmp_path: Path) -> None:
    inner = tmp_path / "inner.tar.gz"
    with tarfile.open(inner, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for number in range(20):
            archive.addfile(tarfile.TarInfo(f"d{number}/"))
    budget = Budget(unpacked_bytes=30 * 1024)
    read_file(inner, budget)
    with pytest.raises(ValueError, match="unpacks to more"):
        [read_file(inner, budget) for _ in range(3)]


@pytest.mark.parametrize(
    "text",
    [
        "1" * 300_000,
        "Every 1.0s: " + " " * 300_000 + "x",
        "<html><pre>\n" + "<" * 300_000,
        '{"message":' + "[" * 100_000,
    ],
    ids=["digits", "blanks", "tags", "json"],
)
def test_a_line_without_end(tmp_path: Path, text: str) -> None:
    path = tmp_path / "line"
    path.write_text(text + "\nMemTotal: 100000 kB\nMemFree: 50000 kB\n")
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "kleak", "triage", str(path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1, 2)
    assert "Traceback" not in done.stderr
    assert time.monotonic() - begun < 30
