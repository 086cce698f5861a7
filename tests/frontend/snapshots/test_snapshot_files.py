"""Reading snapshots: directories, tars, bare files under any name, and what is none of these."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from kleak.errors import UsageError
from kleak.snapshots.detect import find_sections
from kleak.snapshots.judge import analyze
from kleak.snapshots.snapshot_files import read_snapshots
from tests.support.paths import TESTS

DATA = TESTS / "data"
SAMPLES = sorted(
    path
    for report in ("vmallocinfo", "slabinfo", "meminfo", "kmemleak", "allocinfo", "buddyinfo",
                   "zoneinfo", "page_owner", "page_owner_stacks", "proc_modules", "kallsyms")
    for path in (DATA / report).glob("*.txt")
)  # fmt: skip
ATTRIBUTES = {"page_owner": "page_stacks", "page_owner_stacks": "page_stacks",
              "proc_modules": "modules", "kallsyms": "module_symbols"}  # fmt: skip
CASE = "vmalloc-kmalloc-and-page-leak"


def tar_of(kernel, case=CASE):
    return DATA / f"snapshots/{kernel}--{case}.tar.gz"


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_real_snapshots_of_a_real_leak(kernel):
    shots = read_snapshots([tar_of(kernel)])
    assert [shot.label for shot in shots] == [f"{number:03}" for number in range(1, 7)]
    assert all(shot.dropped_caches for shot in shots)
    assert len({shot.boot_id for shot in shots}) == 1
    assert not any(shot.damaged for shot in shots)
    report = analyze(shots, "x").report
    best = report.sites[0]
    assert best.outstanding.count == 68
    assert best.outstanding.size_bytes == 68 * 45056
    assert [step.count for step in best.per_cycle] == [17, 0, 17, 17, 17]
    assert (best.frames[0].module, best.frames[0].symbol) == ("classic", "classic_leak_vmalloc")
    memory = analyze([shots[0], *shots[2:]], "x").memory
    assert {c.name for c in memory.classes if c.owner == "kernel" and c.grows} == {
        "SUnreclaim", "VmallocUsed", "unaccounted",
    }  # fmt: skip


def test_pinned_maps_on_a_kernel_without_modules():
    """11 BPF hash maps that outlive their maker: one region of buckets, one of elements each."""
    shots = read_snapshots([tar_of("6.18", "11-pinned-maps")])
    [*_, with_maps, without] = shots
    sites = [
        site
        for site in analyze([shots[0], with_maps], "x").report.sites
        if site.frames and site.frames[0].symbol == "htab_map_alloc"
    ]
    assert [site.outstanding.count for site in sites] == [11, 11]
    assert sum(site.outstanding.size_bytes for site in sites) == 11 * (1126400 + 266240)
    assert not [
        site
        for site in analyze([shots[0], without], "x").report.sites
        if site.frames and site.frames[0].symbol == "htab_map_alloc"
    ]


def test_a_tar_and_its_directory_are_one(tmp_path):
    with tarfile.open(tar_of("6.12")) as archive:
        archive.extractall(tmp_path)
    assert read_snapshots([tmp_path]) == read_snapshots([tar_of("6.12")])
    assert read_snapshots([tmp_path / "002"]) == read_snapshots([tar_of("6.12")])[1:2]


def test_numbers_order_snapshots_not_names(tmp_path):
    for number in (2, 10, 9):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "manifest").write_text("kleak-snapshot: 1\n")
    assert [shot.label for shot in read_snapshots([tmp_path])] == ["2", "9", "10"]


def test_a_hostile_tar_is_not_unpacked(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, text in (
            ("../../s/manifest", "kleak-snapshot: 1\n"),
            ("../../s/meminfo", "MemTotal: 4 kB\n"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    [shot] = read_snapshots([path])
    assert shot.meminfo.mem_total_bytes == 4096
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_report_is_recognised_by_its_content(sample, tmp_path):
    path = tmp_path / "mailed"
    path.write_bytes(sample.read_bytes())
    [shot] = read_snapshots([path])
    assert getattr(shot, ATTRIBUTES.get(sample.parent.name, sample.parent.name))
    assert not shot.damaged
    # compressed, and with the line ends of a mail
    (tmp_path / "mailed").write_bytes(gzip.compress(sample.read_bytes().replace(b"\n", b"\r\n")))
    [again] = read_snapshots([path])
    assert again == shot


def test_bare_files_before_and_after():
    before = DATA / "vmallocinfo/6.12--before.txt"
    after = DATA / "vmallocinfo/6.12--leaky-module-unloaded.txt"
    shots = read_snapshots([before, after])
    assert [shot.label for shot in shots] == [before.name, after.name]
    best = analyze(shots, "x").report.sites[0]
    assert best.outstanding.count == 17
    assert best.verdict.label == "likely"


def test_files_of_several_kinds_make_snapshots_by_turns():
    names = ("vmallocinfo/6.12--before", "vmallocinfo/6.12--leaky-module-unloaded",
             "meminfo/6.12--before", "meminfo/6.12--after-4-leaks")  # fmt: skip
    shots = read_snapshots([DATA / f"{name}.txt" for name in names])
    assert len(shots) == 2
    assert all(shot.vmallocinfo and shot.meminfo for shot in shots)


def test_reports_glued_in_one_file_are_told_apart(tmp_path):
    path = tmp_path / "log"
    parts = [DATA / f"{name}.txt" for name in (
        "meminfo/6.12--before", "slabinfo/6.12--before", "vmallocinfo/6.12--before",
        "meminfo/6.12--after-4-leaks", "slabinfo/6.12--after-4-leaks")]  # fmt: skip
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    kinds = [section.kind for section in find_sections(path.read_bytes())]
    assert kinds == ["meminfo", "slabinfo", "vmallocinfo", "meminfo", "slabinfo"]
    first, second = read_snapshots([path])
    assert first.meminfo.mem_free_bytes != second.meminfo.mem_free_bytes
    assert first.slabinfo.caches
    assert second.slabinfo.caches
    assert second.vmallocinfo is None
    assert not first.damaged
    assert not second.damaged


def test_a_kernel_log_is_read_for_its_witnesses():
    [shot] = read_snapshots([DATA / "kmsg/6.12--objects-remaining-and-netdevice.txt"])
    assert len(shot.log) == 6


def test_damage_is_counted_and_the_rest_kept(tmp_path):
    text = (DATA / "vmallocinfo/6.12--before.txt").read_text()
    lines = text.splitlines(keepends=True)
    lines[5] = lines[5][:30] + "\n"
    path = tmp_path / "vm"
    path.write_text("".join(lines))
    [shot] = read_snapshots([path])
    assert shot.damaged == {"vmallocinfo": 1}
    assert len(shot.vmallocinfo.regions) == len(lines) - 1


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\0" * 5000, bytes(range(256)) * 20])
def test_what_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "letter"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="letter"):
        read_snapshots([path])


def test_an_empty_directory_and_a_newer_snapshot_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no report"):
        read_snapshots([tmp_path])
    (tmp_path / "manifest").write_text("kleak-snapshot: 2\n")
    with pytest.raises(UsageError, match="its format is 2"):
        read_snapshots([tmp_path])


def test_a_broken_gzip_is_an_error_of_its_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(b"MemTotal: 4 kB\n" * 1000)[:40])
    with pytest.raises(UsageError, match="cannot read"):
        read_snapshots([path])
