"""Names are looked up once, and no stranger's link is followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kleak.errors import UsageError
from kleak.files import output_files
from kleak.files.output_files import write_file

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")

NOBODY = 65534


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    return tmp_path / "theirs"


@pytest.mark.parametrize("name", ["r.json", "out/r.json"])
def test_a_strangers_link_does_not_choose_what_root_replaces(theirs, tmp_path, name):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/r.json").write_text("root's")
    link = theirs / name.split("/")[0]
    link.symlink_to(tmp_path / "etc" if "/" in name else tmp_path / "etc/r.json")
    os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(UsageError, match="belongs to another user"):
        write_file(str(theirs / name), b"report")
    assert (tmp_path / "etc/r.json").read_text() == "root's"
    os.lchown(link, 0, 0)
    write_file(str(theirs / name), b"report")
    assert (tmp_path / "etc/r.json").read_text() == "report"


def test_a_name_that_is_flipped_while_it_is_written(theirs, tmp_path, monkeypatch):
    """The owner of the directory puts a link to root's directory there after the look."""
    (tmp_path / "etc").mkdir()
    path = theirs / "r.json"
    path.write_text("older")
    os.chown(path, NOBODY, NOBODY)
    make = output_files.Place.make

    def flipped(place):
        path.unlink()
        path.symlink_to(tmp_path / "etc/ld.so.preload")
        return make(place)

    monkeypatch.setattr(output_files.Place, "make", flipped)
    write_file(str(path), b"report")
    assert os.listdir(tmp_path / "etc") == []
    assert not path.is_symlink()


def test_the_callers_links_are_followed(theirs, tmp_path, monkeypatch):
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    link = theirs / "r.json"
    link.symlink_to("real.json")
    os.lchown(link, NOBODY, NOBODY)
    write_file(str(link), b"report")
    assert (theirs / "real.json").read_bytes() == b"report"
