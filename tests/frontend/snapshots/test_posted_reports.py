"""Reports as people post them (tests/data/reports), each with its right answer.

A case is a command, the files, what has to be said, what must not be, and the exit status.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from kleak.cli import cli
from kleak.errors import KleakError
from tests.support.paths import TESTS

REPORTS = TESTS / "data" / "reports"
OBJECT = ("1 object (128 B)", "foo_open+0x31")
NOT_NOTHING = ("nothing reported",)
SLAB = ("SUnreclaim", "6.5 GB", "85.0 %")
BIG_CACHE = ("kmalloc-2048", "6.3 GB")
PLACE = ("6.5 GB", "foo_alloc_ring", "foo.c:85", "100")
PAGES = ("foo_populate", "1.7 GB")
WAITS = ("unregister_netdevice waited for veth0", "usage count 2")
FOO_CACHE = ("cache foo_cache was destroyed with",)


@dataclass(frozen=True)
class Case:
    files: str
    says: tuple[str, ...]
    not_: tuple[str, ...] = ()
    command: str = "triage"
    status: int = 0


def kmemleak(name, *says, objects=OBJECT):
    return Case(name, (*objects, *says), NOT_NOTHING)


CASES = (
    Case("a01-allocinfo-alone", PLACE),
    Case("a02-allocinfo-no-header", PLACE),
    Case("a03-allocinfo-numfmt", PLACE),
    Case("b01-buddyinfo-alone", ("10,400 pages", "zone Normal", "no free block of 4 pages")),
    Case("b02-pagetypeinfo", ("pagetypeinfo", "Unmovable", "3,001 blocks"), ("buddyinfo",)),
    Case("d01-dmesg-T", (*WAITS, "kmemleak reported 3 new suspects")),
    Case("d02-journal", (*WAITS, "kmemleak reported 3 new suspects")),
    Case("d03-syslog-ts", (*WAITS, "kmemleak reported 3 new suspects")),
    Case("d04-wall", (*WAITS, "2 times")),
    *(Case(name, WAITS) for name in ("d05-plain", "d06-logread", "d13-container", "d14-dmesg-x")),
    *(
        Case(name, FOO_CACHE, command=command, status=status)
        for command, status in (("triage", 0), ("analyze", 1))
        for name in ("d07-objects-remaining-3.x", "d07b-slab-cache-still-has-objects",
                     "d08-slab-cant-free-all", "d09-objects-remaining-6.x")
    ),
    Case("d10-reftracker", ("foo_route+0x97 [foo]", *WAITS)),
    Case("d10-reftracker", ("foo_route+0x97 [foo]",), command="analyze", status=1),
    Case("d11-page-alloc-fail", ("SUnreclaim", "3.4 GB", "87.5 %", "an allocation failed",
                                 "order 5")),
    Case("d12-oom", ("SUnreclaim", "3.4 GB", "kmalloc-2k", "3.2 GB", "foo (pid 541)")),
    Case("d15-left-at-unload-alone", ("foo_init", "4096 B")),
    Case("d15-left-at-unload-alone", ("foo_init", "foo.c:12", "4.0 kB"), command="analyze",
         status=1),
    Case("d16-cache-not-empty-with-caller", ("foo_cache", "foo_exit+0x93/0x99 [foo]")),
    Case("d16-cache-not-empty-with-caller", ("foo_cache", "foo_exit"), command="analyze", status=1),
    Case("f-bugreport", (*SLAB, *BIG_CACHE)),
    Case("f-free", ("7500 of 7812", "96 %", "next:", "/proc/meminfo")),
    Case("f-lsmod", ("1 module is loaded", "next:")),
    Case("f-uname", ("tells nothing of memory", "next:")),
    Case("f-permission-denied", ("no report that kleak knows",), status=2),
    Case("f-permission-denied base/ok-meminfo",
         ("no report that kleak knows in f-permission", *SLAB)),
    Case("f-sos", (*SLAB, *BIG_CACHE, *WAITS)),
    Case("f-dir", SLAB),
    Case("g01-16k-pages-slabinfo", ("kmalloc-2k", "6.3 GB"), ("1.6 GB",)),
    kmemleak("k01-kmemleak-trailing-prompt"),
    kmemleak("k01b-kmemleak-trailing-prose", "line 12", "Any idea"),
    kmemleak("k01c-kmemleak-ellipsis-between", "line 11", objects=("2 objects (256 B)",)),
    kmemleak("k02-kmemleak-syzbot-file-line", "drivers/foo/foo.c:85"),
    *(kmemleak(name) for name in (
        "k03-kmemleak-quoted", "k04-kmemleak-indented", "k05-kmemleak-journalctl",
        "k05b-kmemleak-syslog", "k06-kmemleak-dmesg-T", "k07-kmemleak-crlf", "k08-kmemleak-bom",
        "k09-kmemleak-utf16", "k10-kmemleak-html-entities", "k11-kmemleak-no-indent",
        "k12-kmemleak-bug-same-line", "k13-kmemleak-no-hexdump")),
    kmemleak("k14-kmemleak-empty-backtrace", objects=("1 object (128 B)", "no stack")),
    kmemleak("k15-kmemleak-hex-elided", "line 4"),
    kmemleak("k16-kmemleak-frames-elided", "line 9"),
    kmemleak("k17-kmemleak-two-stacks-one-place", objects=("2 objects (256 B)",)),
    kmemleak("k18-kmemleak-shorter-stack", objects=("2 objects (256 B)",)),
    Case("k17-kmemleak-two-stacks-one-place", ("2 objects, 256 B",), command="analyze"),
    Case("k18-kmemleak-shorter-stack", ("2 objects, 256 B",), command="analyze"),
    Case("k19-kmemleak-two-reports-in-one-file", ("2 snapshots", "1 object, 128 B"),
         command="analyze", status=1),
    *(Case(name, SLAB) for name in (
        "m01-meminfo-indented", "m02-meminfo-quoted", "m03-meminfo-bom-crlf", "m04-meminfo-utf16",
        "m06-meminfo-kubectl-timestamps", "m06b-meminfo-prefix", "m07-meminfo-tab",
        "m07b-meminfo-tab-spaces", "m09-meminfo-collapsed", "m10-meminfo-one-line",
        "m18-meminfo-annotated", "m19-meminfo-bold")),
    Case("m05-meminfo-grep", ("SUnreclaim, 6.5 GB", "MemTotal is not here"), ("unaccounted  ",)),
    Case("m08-meminfo-cut-head", ("SUnreclaim, 6.5 GB", "MemTotal is not here"),
         ("unaccounted  ",)),
    Case("m11-meminfo-2.6.9", ("Slab ", "879 MB", "AnonPages"), ("unaccounted  ",)),
    Case("m12-meminfo-loop-with-date", ("SUnreclaim: rose in each of 4 steps", "488 MB a step",
                                        "12:05:00")),
    Case("m12-meminfo-loop-with-date", ("unreclaimable slab", "488 MB a step"), command="analyze",
         status=1),
    Case("m13-meminfo-loop-grep", ("unreclaimable slab", "488 MB a step"), command="analyze",
         status=1),
    Case("m14-meminfo-head", ("AnonPages, Slab", "PageTables"), ("unaccounted  ",)),
    Case("m15-two-meminfo-second-cut", ("AnonPages, Slab", *SLAB)),
    Case("m15-two-meminfo-second-cut", ("AnonPages",), ("unaccounted  ",), command="analyze"),
    Case("m16-meminfo-sreclaimable-dentries", ("75.0 %", "dentries", "reclaimable")),
    Case("m17-meminfo-shmem", ("75.0 %", "tmpfs")),
    Case("p01-page_owner_sorted-old", PAGES),
    Case("p02-page_owner_sorted-new", PAGES),
    Case("p03-page_owner_raw", ("foo_populate", "4.0 kB")),
    Case("p04-page_owner_raw-4.x-bracket-frames", ("foo_populate", "4.0 kB"), ("damage",)),
    Case("p05-page_owner_stacks", PAGES),
    Case("p06-page_owner_stacks_6.12", ("foo_populate+0x502 [foo]", "1.7 GB"), ("post_alloc",)),
    *(Case(name, BIG_CACHE) for name in (
        "s01-slabinfo-alone", "s02-slabinfo-no-header", "s03-slabinfo-grep",
        "s04-slabinfo-wrapped", "s08-slabinfo-indented", "s13-watch", "s14-memcg-names",
        "w01-slabtop", "w02-crash-kmem-s", "w11-slabinfo-tool")),
    Case("s04b-meminfo+slabinfo-wrapped", (*SLAB, *BIG_CACHE), ("large kmalloc",)),
    Case("s05-meminfo+slabinfo-no-header", (*SLAB, *BIG_CACHE)),
    Case("s06-meminfo+slabinfo-head-only", (*SLAB, "not all of"), ("large kmalloc",)),
    Case("s07-meminfo+slabinfo-top3", (*SLAB, *BIG_CACHE)),
    Case("s09-slabinfo-loop-with-date", ("cache kmalloc-2048", "1.2 GB", "312 MB a step"),
         command="analyze", status=1),
    Case("s10-slabinfo-loop-grep", ("cache kmalloc-2048", "1.2 GB", "312 MB a step"),
         command="analyze", status=1),
    Case("s11-slabinfo-statistics", ("size-2048", "586 MB")),
    Case("s12-slabinfo-1.1-linux2.4", ("ip_conntrack", "107 MB")),
    Case("s12-slabinfo-1.1-linux2.4 base/ok-meminfo", ("ip_conntrack",), ("large kmalloc",)),
    Case("t01-alloc_calls-old", ("foo_open+0x31 [foo]", "5,000")),
    Case("t02-alloc_calls-with-name", ("foo_open+0x31 [foo]", "kmalloc-64", "312 kB")),
    Case("v01-vmallocinfo-pcpu", ("foo_open+0x10 [foo]", "address space")),
    Case("v02-vmallocinfo-indented", ("foo_open+0x10 [foo]", "16.0 kB")),
    Case("v04-vmallocinfo-no-offset", ("foo_open [foo]", "16.0 kB"), ("None",)),
    Case("v05-vmallocinfo-2.6-arm", ("module_alloc_update_bounds", "foo_open+0x10 [foo]")),
    Case("v06-vmallocinfo-wrapped", ("foo_open+0x10 [foo]", "2 regions", "32.0 kB")),
    Case("w03-crash-kmem-i", ("Slab", "6.6 GB", "86.2 %")),
    Case("w04-memleak-bcc", ("foo_open+0x31 [foo]", "6.3 GB", "3,300,000")),
    Case("w05-bpftrace", ("foo_open+0x31", "3,300,000")),
    Case("w06-vmstat", ("SUnreclaim, 6.5 GB", "--page-size")),
    Case("w07-ref_tracker-debugfs", ("foo_route+0x97 [foo]", "1 of 1")),
    Case("w08-top", ("7.3 GB of 7.6 GB", "next:")),
    Case("w09-smem", ("7.0 GB", "kernel dynamic memory", "next:")),
    Case("w10-slabinfo-sysfs", ("kmalloc-2k", "6.3 GB")),
    Case("w12-cgroups", ("120,534 memory cgroups",)),
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    output: str
    exit_code: int


def run(command, *paths, stdin=None):
    arguments = [command, *map(str, paths)]
    done = CliRunner().invoke(cli, arguments, input=stdin, standalone_mode=False)
    if isinstance(done.exception, KleakError):
        return Result(f"{done.output}kleak: {done.exception}", done.exception.exit_status)
    assert done.exception is None, done.exception
    return Result(done.output, done.return_value)


def said(result):
    """All that was printed, on one line, however it was wrapped."""
    return " ".join(result.output.split())


def path_of(name):
    path = REPORTS / name
    return path if path.is_dir() else REPORTS / f"{name}.txt"


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.command}-{case.files.replace(' ', '+')}"
)
def test_right_answer(case):
    result = run(case.command, *map(path_of, case.files.split()))
    output = said(result)
    missing = [text for text in case.says if " ".join(text.split()) not in output]
    assert not missing, result.output
    assert not [text for text in case.not_ if text in result.output], result.output
    assert result.exit_code == case.status, result.output


def test_every_input_is_a_case():
    named = {name for case in CASES for name in case.files.split()}
    files = {path.stem for path in REPORTS.glob("*.txt")} | {"f-sos", "f-dir"}
    assert files - named == set()


def test_a_paste_on_standard_input():
    result = run("triage", "-", stdin=(REPORTS / "m02-meminfo-quoted.txt").read_bytes())
    assert "85.0 %" in result.output
    assert run("triage", "-", stdin=b"").exit_code == 2


def _tar(mode):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        archive.add(REPORTS / "f-sos", "sosreport-box")
    return data.getvalue()


def _zip():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((REPORTS / "f-sos").rglob("*")):
            archive.write(path, path.relative_to(REPORTS))
    return data.getvalue()


@pytest.mark.parametrize(
    "pack",
    [lambda: _tar("w"), lambda: _tar("w:gz"), lambda: _tar("w:xz"), lambda: _tar("w:bz2"), _zip,
     lambda: gzip.compress((REPORTS / "f-bugreport.txt").read_bytes()),
     lambda: lzma.compress((REPORTS / "f-bugreport.txt").read_bytes())],
    ids=["tar", "tar.gz", "tar.xz", "tar.bz2", "zip", "gz", "xz"],
)  # fmt: skip
def test_archives_are_read_whatever_their_name(tmp_path, pack):
    path = tmp_path / "attachment"
    path.write_bytes(pack())
    output = said(run("triage", path))
    assert all(text in output for text in (*SLAB, *BIG_CACHE))
    assert sorted(tmp_path.iterdir()) == [path]


def test_links_of_a_tree_are_not_followed(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/meminfo").symlink_to(REPORTS / "base/ok-meminfo.txt")
    assert run("triage", tmp_path / "tree").exit_code == 2


def test_an_empty_kmemleak_file_is_a_kernel_without_a_leak(tmp_path):
    """Before: nothing. After: an object. The first must not make the second unreadable."""
    before = tmp_path / "kmemleak.before"
    before.write_bytes(b"")
    result = run("analyze", before, REPORTS / "base/ok-kmemleak.txt")
    assert "2 snapshots" in result.output
    assert "foo_open+0x31 [foo]" in result.output
    assert "nothing reported" in run("triage", before).output


def test_an_empty_modules_file_says_that_none_is_loaded(tmp_path):
    modules = tmp_path / "modules"
    modules.write_bytes(b"")
    result = run("analyze", modules, REPORTS / "base/ok-kmemleak.txt")
    assert "module foo is no longer loaded" in said(result)


def test_damage_is_never_nothing_reported(tmp_path):
    """Whatever line of an object is cut in two, the object is there, or is said to be damaged."""
    lines = (REPORTS / "base/ok-kmemleak.txt").read_text().splitlines()
    path = tmp_path / "report"
    for number, line in enumerate(lines):
        cut = [*lines[:number], line[: len(line) // 2], *lines[number + 1 :]]
        path.write_text("\n".join(cut) + "\n")
        result = run("triage", path)
        assert "nothing reported" not in result.output, cut
        assert ("1 object" in result.output or "could not be read" in result.output
                or "not used" in result.output or result.exit_code == 2), result.output  # fmt: skip
