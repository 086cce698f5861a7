"""Snapshots that root takes in a directory of another user, and what SIGKILL leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kleak.errors import UsageError
from kleak.snapshots import collect as module
from kleak.snapshots.collect import Snapshot, collect, script

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "proc/sys/kernel").mkdir(parents=True)
    (top / "proc/meminfo").write_text("MemTotal: 1 kB\n")
    (top / "proc/modules").write_text("kernel text\n")
    (top / "proc/sys/kernel/kptr_restrict").write_text("2\n")
    return top


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """A directory of root's, with a file in it that has a report's name."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/modules").write_text("ROOT CONFIG\n")
    return tmp_path / "etc"


@pytest.mark.parametrize("report", ["meminfo", "modules", "manifest"])
def test_a_directory_that_is_swapped_for_a_link(root, roots, tmp_path, monkeypatch, report):
    """By its owner, before any of the files is made."""
    write = Snapshot._write

    def swapped(snapshot, name, content):
        unfinished = tmp_path / "s/001.partial"
        if name == report and not unfinished.is_symlink():
            unfinished.rename(tmp_path / "s/moved")
            unfinished.symlink_to(roots)
        write(snapshot, name, content)

    monkeypatch.setattr(Snapshot, "_write", swapped)
    collect(tmp_path / "s", root=root)
    assert os.listdir(roots) == ["modules"]
    assert (roots / "modules").read_text() == "ROOT CONFIG\n"
    assert (tmp_path / "s/moved/modules").read_text() == "kernel text\n"


def test_a_link_in_the_directory_is_not_followed(root, roots, tmp_path, monkeypatch):
    describe = module._describe

    def planted(snapshot, *rest):
        (tmp_path / "s/001.partial/modules").symlink_to(roots / "modules")
        describe(snapshot, *rest)

    monkeypatch.setattr(module, "_describe", planted)
    collect(tmp_path / "s", root=root)
    assert (roots / "modules").read_text() == "ROOT CONFIG\n"


@needs_root
def test_a_strangers_link_on_the_way(root, roots, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(roots)
    collect(link, root=root)
    os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(UsageError, match="/link: the link link on the way belongs to"):
        collect(link, root=root)
    assert sorted(os.listdir(roots)) == ["001", "modules"]


def test_the_setting_is_put_back_after_sigkill(root, tmp_path):
    setting = root / "proc/sys/kernel/kptr_restrict"
    os.mkfifo(root / "proc/vmallocinfo")
    code = (
        "import sys; from pathlib import Path; from kleak.snapshots.collect import collect;"
        "collect(Path(sys.argv[1]), root=Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s"), str(root)])
    until = time.monotonic() + 60
    while setting.read_text() != "1":
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    while setting.read_text().strip() != "2":
        assert time.monotonic() < until
        time.sleep(0.01)


@needs_root
@pytest.mark.parametrize("planted", ["modules", "manifest", "error"])
def test_the_script_overwrites_nothing(roots, tmp_path, planted):
    """Its directory is another user's by the time that it enters it, with a link in it."""
    script_file = tmp_path / "collect.sh"
    line = 'mkdir "$name.partial" 2>/dev/null && break'
    assert line in script()
    plant = f'mkdir "$name.partial" && ln -s {roots}/modules "$name.partial/{planted}" && break'
    script_file.write_text(script().replace(line, plant))
    subprocess.run(["sh", script_file, tmp_path / "s"], capture_output=True, check=False)
    assert (roots / "modules").read_text() == "ROOT CONFIG\n"


@needs_root
def test_the_script_enters_no_link(roots, tmp_path):
    script_file = tmp_path / "collect.sh"
    line = 'mkdir "$name.partial" 2>/dev/null && break'
    script_file.write_text(script().replace(line, f'ln -s {roots} "$name.partial" && break'))
    done = subprocess.run(
        ["sh", script_file, tmp_path / "s"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "was replaced while it was made" in done.stderr
    assert os.listdir(roots) == ["modules"]
