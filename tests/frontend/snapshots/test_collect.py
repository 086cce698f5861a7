"""kleak collect on a tree that stands for / : what is saved, noted, and put back."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from kleak.errors import UnsupportedError, UsageError
from kleak.snapshots import collect as module
from kleak.snapshots.collect import Snapshot, collect, script
from kleak.snapshots.snapshot_files import read_snapshots

ROW = "0x{:016x}-0x{:016x} 8192 f+0x1/0x2 pages=1 vmalloc N0=1\n"


@pytest.fixture
def root(tmp_path):
    top = tmp_path / "root"
    files = {
        "proc/meminfo": "MemTotal: 100 kB\n",
        "proc/vmallocinfo": ROW.format(0xFFFFC90000000000, 0xFFFFC90000002000),
        "proc/kallsyms": "ffffffff81000000 T _stext\nffffffffc0001000 t work\t[leaky]\n",
        "proc/uptime": "12.34 56.78\n",
        "proc/mounts": "",
        "proc/sys/kernel/osrelease": "6.1.0-test\n",
        "proc/sys/kernel/kptr_restrict": "0\n",
        "proc/sys/kernel/random/boot_id": "abc\n",
        "proc/sys/vm/drop_caches": "0\n",
        "sys/kernel/debug/kmemleak": "",
        "sys/kernel/debug/slab/kmalloc-2k/alloc_traces": "  3 f+0x1/0x2 age=1 pid=1\n",
        "sys/kernel/debug/slab/kmalloc-1k/alloc_traces": "No data\n",
    }
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    slab = top / "sys/kernel/slab"
    (slab / ":0000192").mkdir(parents=True)
    (slab / "names").symlink_to(":0000192")
    (slab / "kmalloc-192").symlink_to(":0000192")
    return top


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    monkeypatch.setattr(module.os, "sync", lambda: None)
    return slept


def kptr_restrict(root):
    return (root / "proc/sys/kernel/kptr_restrict").read_text().strip()


def test_a_snapshot_can_be_read_back(root, tmp_path):
    taken = collect(tmp_path / "s", root=root)
    assert taken.path == tmp_path / "s/001"
    assert taken.path.stat().st_mode & 0o077 == 0
    [shot] = read_snapshots([tmp_path / "s"])
    assert shot.kernel.release == "6.1.0-test"
    assert (shot.uptime_seconds, shot.boot_id) == (12.34, "abc")
    assert shot.meminfo.mem_total_bytes == 102400
    assert [symbol.name for symbol in shot.module_symbols] == ["work"]
    assert shot.slab_aliases == {"names": ("kmalloc-192",), "kmalloc-192": ("names",)}
    assert list(shot.alloc_traces) == ["kmalloc-2k"]
    assert shot.missing["allocinfo"] == "absent"
    assert (shot.dropped_caches, shot.scanned) == (False, False)
    assert "addresses: real\n" in (taken.path / "manifest").read_text()


def test_numbers_go_on_and_gaps_of_others_are_respected(root, tmp_path):
    place = tmp_path / "s"
    place.mkdir()
    (place / "002.tar").touch()
    (place / "003.partial").mkdir()
    names = [collect(place, root=root).path.name for _ in range(3)]
    assert names == ["001", "004", "005"]


def test_addresses_are_asked_for_and_the_setting_is_put_back(root, tmp_path, monkeypatch):
    during = {}
    save = Snapshot.save

    def note_and_save(self, report, source):
        during[report] = kptr_restrict(root)
        return save(self, report, source)

    monkeypatch.setattr(Snapshot, "save", note_and_save)
    for before in ("0", "1", "2"):
        (root / "proc/sys/kernel/kptr_restrict").write_text(before)
        collect(tmp_path / "s", root=root)
        assert during["vmallocinfo"] == "1"
        assert during["kmemleak"] == "1"
        assert during["meminfo"] == before
        assert kptr_restrict(root) == before


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_the_setting_is_put_back_and_nothing_is_left_on_every_way_out(
    root, tmp_path, monkeypatch, failure
):
    save = Snapshot.save

    def fail(self, report, source):
        if report == "vmallocinfo":
            raise failure
        return save(self, report, source)

    monkeypatch.setattr(Snapshot, "save", fail)
    with pytest.raises((KeyboardInterrupt, UnsupportedError)):
        collect(tmp_path / "s", root=root)
    assert kptr_restrict(root) == "0"
    assert list((tmp_path / "s").iterdir()) == []


def test_drop_caches_and_scan(root, tmp_path, no_waiting):
    collect(tmp_path / "s", drop_caches=True, scan=True, root=root)
    assert (root / "proc/sys/vm/drop_caches").read_text() == "3"
    assert (root / "sys/kernel/debug/kmemleak").read_text() == "scan"
    # kmemleak reports nothing younger than 5 s, and the first scan only notes checksums
    assert no_waiting == [1, 5, 5]
    [shot] = read_snapshots([tmp_path / "s"])
    assert (shot.dropped_caches, shot.scanned) == (True, True)


def test_what_was_asked_for_and_not_done_is_told(root, tmp_path):
    (root / "proc/sys/vm/drop_caches").unlink()
    (root / "proc/sys/vm/drop_caches").mkdir()
    (root / "sys/kernel/debug/kmemleak").unlink()
    taken = collect(tmp_path / "s", drop_caches=True, scan=True, root=root)
    assert taken.not_done() == [
        "caches were not dropped: Is a directory",
        "kmemleak did not scan: absent",
    ]
    assert collect(tmp_path / "s", root=root).not_done() == []


def test_the_script_tells_it_too(tmp_path):
    if os.path.exists("/sys/kernel/debug/kmemleak"):
        pytest.skip("this kernel has kmemleak")
    (tmp_path / "collect.sh").write_text(script())
    done = subprocess.run(
        ["sh", tmp_path / "collect.sh", "--scan", tmp_path / "s"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "collect: kmemleak did not scan: absent" in done.stderr


def test_what_is_refused_is_noted_with_the_reason(root, tmp_path):
    (root / "proc/vmallocinfo").unlink()
    (root / "proc/vmallocinfo").mkdir()
    taken = collect(tmp_path / "s", root=root)
    assert taken.refused["vmallocinfo"] == "refused: Is a directory"
    assert not (taken.path / "vmallocinfo").exists()
    [shot] = read_snapshots([tmp_path / "s"])
    assert shot.missing["vmallocinfo"] == "refused: Is a directory"


def test_a_machine_without_dmesg(root, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    taken = collect(tmp_path / "s", root=root)
    assert taken.refused["dmesg"] == "refused: no command dmesg"


def test_errors_of_use(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        collect(tmp_path / "file", root=root)
    with pytest.raises(UnsupportedError, match="meminfo"):
        collect(tmp_path / "s", root=tmp_path)


@pytest.mark.parametrize("shell", [["sh"], ["dash"], ["bash", "--posix"], ["busybox", "ash"]])
def test_the_script_is_posix_shell(shell, tmp_path):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} here")
    path = tmp_path / "collect.sh"
    path.write_text(script())
    subprocess.run([*shell, "-n", str(path)], check=True)
    usage = subprocess.run([*shell, str(path)], capture_output=True, text=True, check=False)
    assert usage.returncode == 2
    assert "usage:" in usage.stderr
    unknown = subprocess.run([*shell, str(path), "--x", "d"], capture_output=True, check=False)
    assert unknown.returncode == 2
