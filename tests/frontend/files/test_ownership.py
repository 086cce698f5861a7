"""Whose the files are that root makes for the user who called sudo."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kleak.files.lookup import opened_directory
from tests.support.paths import TOP

pytestmark = pytest.mark.host  # root, to give files away

CALLER = (1237, 1249)
SAMPLE = TOP / "tests/data/sessions/v1/6.12--leaky.kleak"


@pytest.fixture
def under_sudo(monkeypatch):
    monkeypatch.setenv("SUDO_UID", str(CALLER[0]))
    monkeypatch.setenv("SUDO_GID", str(CALLER[1]))


def make_directory(path):
    with opened_directory(str(path), make=True):
        pass


def owner(path):
    status = path.lstat()
    return status.st_uid, status.st_gid


def kleak(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "kleak", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr


def test_reports_and_sessions_are_the_callers(under_sudo, tmp_path):
    kleak("report", SAMPLE, "-o", "page.html", cwd=tmp_path)
    kleak("run", "--scope", "do_signalfd4", "-o", "s.kleak", "--json", "r.json", "--", "true",
          cwd=tmp_path)  # fmt: skip
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["page.html", "r.json", "s.kleak"]
    for name in made:
        assert owner(tmp_path / name) == CALLER
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_snapshots_are_the_callers_with_the_directories_made_for_them(under_sudo, tmp_path):
    kleak("collect", "new/shots", cwd=tmp_path)
    made = list((tmp_path / "new").rglob("*"))
    assert tmp_path / "new/shots/001/meminfo" in made
    assert {owner(path) for path in (tmp_path / "new", *made)} == {CALLER}
    assert owner(tmp_path) == (os.getuid(), os.getgid())


def test_without_sudo_files_stay_their_makers(monkeypatch, tmp_path):
    monkeypatch.delenv("SUDO_UID", raising=False)
    kleak("report", SAMPLE, "-o", "page.html", cwd=tmp_path)
    assert owner(tmp_path / "page.html") == (os.getuid(), os.getgid())


@pytest.mark.parametrize("value", ["", "-1", "0x10", "nobody"])
def test_a_number_that_is_none_changes_nothing(monkeypatch, tmp_path, value):
    monkeypatch.setenv("SUDO_UID", value)
    monkeypatch.setenv("SUDO_GID", value)
    make_directory(tmp_path / "a/b")
    assert owner(tmp_path / "a/b") == (os.getuid(), os.getgid())


def test_what_was_there_before_is_not_given_away(under_sudo, tmp_path):
    (tmp_path / "roots").mkdir()
    make_directory(tmp_path / "roots/new")
    assert owner(tmp_path / "roots/new") == CALLER
    assert owner(tmp_path / "roots") == (0, 0)
