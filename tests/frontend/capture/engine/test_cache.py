"""Compiled programs are kept, and only what nobody else can have touched is believed."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from kleak.capture.engine import cache as kept_files
from kleak.capture.engine.bpf_maps import MapDefinition
from kleak.capture.engine.program_cache import cached_image
from kleak.capture.engine.program_image import ProgramImage, replace_maps

LOAD_MAP = struct.pack("<BBhi", 0x18, 0x12, 0, 7)  # r2 = the map of number 7
SECOND_HALF = struct.pack("<BBhi", 0, 0, 0, 0)
LOAD_NUMBER = struct.pack("<BBhi", 0x18, 0x02, 0, 7)  # r2 = 7
EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
IMAGE = ProgramImage(
    (MapDefinition("counters", 6, 4, 8, 17, 0, '"int"', '"unsigned long long"'),),
    {"on_kfree_1": LOAD_MAP + SECOND_HALF + EXIT},
)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "kleak" / "programs"


def compiles(image: ProgramImage = IMAGE) -> Callable[[], ProgramImage]:
    return lambda: image


def does_not() -> ProgramImage:
    raise AssertionError("compiled again")


def test_is_compiled_once(directory: Path) -> None:
    assert kept_files.directory() == directory
    assert cached_image("a", compiles()) == (IMAGE, False)
    assert cached_image("a", does_not) == (IMAGE, True)
    assert cached_image("b", compiles()) == (IMAGE, False)


def test_is_private(directory: Path) -> None:
    cached_image("a", compiles())
    (kept,) = directory.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert kept.stat().st_mode & 0o777 == 0o600


def is_believed() -> bool:
    """Whether what is kept under "a" is used."""
    other = ProgramImage((), {})
    return cached_image("a", compiles(other)) == (IMAGE, True)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o702])
def test_directory_open_to_others_is_not_used(directory: Path, mode: int) -> None:
    cached_image("a", compiles())
    assert is_believed()
    directory.chmod(mode)
    assert not is_believed()
    assert len(list(directory.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_file_open_to_others_is_not_believed(directory: Path, mode: int) -> None:
    cached_image("a", compiles())
    (kept,) = directory.iterdir()
    kept.chmod(mode)
    assert not is_believed()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("whose", ["directory", "file"])
def test_what_another_user_owns_is_not_believed(directory: Path, whose: str) -> None:
    cached_image("a", compiles())
    (kept,) = directory.iterdir()
    os.chown(directory if whose == "directory" else kept, 65534, -1)
    assert not is_believed()


@pytest.mark.parametrize("what", ["directory", "file"])
def test_links_are_not_followed(directory: Path, what: str) -> None:
    cached_image("a", compiles())
    linked = directory if what == "directory" else next(directory.iterdir())
    moved = linked.rename(directory.parent / "elsewhere")
    linked.symlink_to(moved)
    assert not is_believed()


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None], ids=["empty", "garbage", "cut"])
def test_damaged_file_is_replaced(directory: Path, damage: bytes | None) -> None:
    cached_image("a", compiles())
    (kept,) = directory.iterdir()
    kept.write_bytes(kept.read_bytes()[:-3] if damage is None else damage)
    assert cached_image("a", compiles()) == (IMAGE, False)
    assert cached_image("a", does_not) == (IMAGE, True)


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "kleak").write_text("in the way")
    assert cached_image("a", compiles()) == (IMAGE, False)


def test_what_cannot_be_touched_is_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that is read-only now."""
    cached_image("a", compiles())

    def refuse(fd: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", refuse)
    assert is_believed()


def test_the_oldest_goes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_files, "KEPT", 2)
    for age, key in enumerate("abc"):
        cached_image(key, compiles())
        os.utime(directory / f"{key}.programs", (age, age))
    cached_image("d", compiles())
    assert sorted(path.name for path in directory.iterdir()) == ["c.programs", "d.programs"]


def test_only_maps_get_other_numbers() -> None:
    code = LOAD_NUMBER + SECOND_HALF + LOAD_MAP + SECOND_HALF + EXIT
    replaced = LOAD_MAP[:4] + struct.pack("<i", 41)
    assert replace_maps(code, {7: 41}) == LOAD_NUMBER + SECOND_HALF + replaced + SECOND_HALF + EXIT


def test_unknown_map_is_an_error() -> None:
    with pytest.raises(KeyError):
        replace_maps(LOAD_MAP + SECOND_HALF, {8: 41})
