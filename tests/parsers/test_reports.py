"""Fields and versions of the reports, one by one."""

from __future__ import annotations

import pytest

from kleak.parsers import allocinfo, kmemleak, kmsg, meminfo, page_owner, slabinfo, slub_traces
from kleak.parsers.errors import ParseError
from tests.parsers.samples import DATA


def kmemleak_of(version):
    return kmemleak.parse((DATA / f"kmemleak/{version}--documented-format.txt").read_text()).objects


def test_kmemleak_5_10_has_an_age_and_hashed_addresses():
    first, second = kmemleak_of("5.10")
    assert first.address == 0xFFFF888003C2A500
    assert (first.size_bytes, first.kind, first.pid) == (128, "object", 331)
    assert (first.jiffies, first.age_seconds) == (4294937296, 12.345)
    assert first.contents == b"\x6b" * 31 + b"\xa5"
    assert first.frame_addresses is None
    assert first.crc is None
    assert str(first.frames[0]) == "lx_leak+0x1f/0x50 [leakx]"
    # a comm may hold quotes and commas; a frame of a module that is gone is an address
    assert second.comm == 'a "b", pid 1'
    assert second.frames[0].address == 0xFFFFFFFFC0A9201F
    assert second.contents == b"leaked\0"


def test_kmemleak_6_6_has_real_addresses():
    [item] = kmemleak_of("6.6")
    assert item.frame_addresses == (0xFFFFFFFFC0A9201F, 0xFFFFFFFF8100105B)


def test_kmemleak_6_8_has_no_age_and_a_checksum():
    [item] = kmemleak_of("6.8")
    assert item.age_seconds is None
    assert item.crc == 0x9C3A2F1E
    assert item.frame_addresses is None  # zero: kptr_restrict is 2


def test_kmemleak_6_12_and_6_18_have_percpu_objects():
    assert [(o.kind, o.contents_cpu, o.crc) for o in kmemleak_of("6.12")] == [
        ("object", None, 0x9C3A2F1E),
        ("object", 1, 0),
    ]
    assert [o.kind for o in kmemleak_of("6.18")] == ["object", "percpu", "phys"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(size 128)", "(size many)"),
        (
            'comm "insmod", pid 331, jiffies 4294937296\n  hex dump (first 32',
            'comm "insmod", pid x, jiffies 1\n  hex dump (first 32',
        ),
        ("lx_leak+0x1f/0x50", "lx_leak+0x1f/"),
        ("  backtrace (crc 9c3a2f1e):\n", ""),
    ],
)
def test_a_damaged_object_is_left_out_and_the_next_is_read(old, new):
    text = (DATA / "kmemleak/6.12--documented-format.txt").read_text()
    assert text.count(old) == 1
    with pytest.raises(ParseError):
        kmemleak.parse(text.replace(old, new))
    report = kmemleak.parse(text.replace(old, new), errors="collect")
    assert [item.address for item in report.objects] == [0x413D0]
    assert len(report.problems) == 1


def test_meminfo_absent_is_none_and_zero_is_zero():
    report = meminfo.parse("MemTotal: 100 kB\nPercpu: 0 kB\nFuture: 7 kB\nThings: 3\n")
    assert report.mem_total_bytes == 102400
    assert report.percpu_bytes == 0
    assert report.sec_page_tables_bytes is None
    assert report.other_bytes == {"Future": 7168}
    assert report.other_counts == {"Things": 3}


@pytest.mark.parametrize("line", ["Slab: 12", "Slab: x kB", "HugePages_Total: 3 kB", "Slab: -1 kB"])
def test_meminfo_known_fields_must_parse(line):
    with pytest.raises(ParseError) as caught:
        meminfo.parse(f"MemTotal: 100 kB\n{line}\n")
    assert caught.value.line_number == 2


def test_slabinfo_of_an_unknown_version_is_refused():
    text = "slabinfo - version: 3.0\nx 1 1 8 512 1 : tunables 0 0 0 : slabdata 1 1 0\n"
    with pytest.raises(ParseError, match=r"version 3\.0"):
        slabinfo.parse(text)
    assert slabinfo.parse(text, errors="collect").caches[0].name == "x"


def test_allocinfo_versions():
    old = allocinfo.parse((DATA / "allocinfo/6.12--documented-format.txt").read_text())
    new = allocinfo.parse((DATA / "allocinfo/6.18--documented-format.txt").read_text())
    assert (old.version, new.version) == ("1.0", "2.0")
    leak = old.sites[3]
    assert (leak.file, leak.line, leak.module, leak.function) == (
        "drivers/leaky/leaky.c", 12, "leaky", "leak_it",
    )  # fmt: skip
    assert (leak.size_bytes, leak.calls) == (123904, 1009)
    assert old.sites[2].size_bytes == -4096
    assert [site.accurate for site in new.sites] == [True, False, True]


def test_page_owner_versions():
    def pages(version):
        text = (DATA / f"page_owner/{version}--documented-format.txt").read_text()
        return page_owner.parse(text).pages

    [oldest] = pages("5.10")
    assert (oldest.pid, oldest.comm, oldest.allocated_at_ns) == (None, None, None)
    assert (oldest.pfn, oldest.order, oldest.pages) == (32556, 2, 4)
    first, second = pages("6.1")
    assert (first.pid, first.comm, first.allocated_at_ns) == (300, "insmod", 1234567890)
    assert (second.comm, second.freed_at_ns) == ("systemd (1), x", 7)
    assert len(second.frames) == 2
    [newest] = pages("6.12")
    assert newest.pfn == 0x7F2C
    assert newest.freed_at_ns is None


def test_page_owner_stacks():
    text = (DATA / "page_owner_stacks/6.12--documented-format.txt").read_text()
    assert [stack.pages for stack in page_owner.parse_stacks(text).stacks] == [508, 20824]
    with pytest.raises(ParseError, match="no page count"):
        page_owner.parse_stacks(text.replace("nr_base_pages: 508\n", ""))


def test_slub_traces_without_stack_or_caller():
    text = (
        "   5874 <not-available> age=4294900094 pid=0 cpus=0\n    3 f+0x1/0x2 age=1/2/3 pid=4-5\n"
    )
    first, second = slub_traces.parse(text).traces
    assert first.caller is None
    assert first.age_jiffies == (4294900094, 4294900094)
    assert second.age_jiffies == (1, 3)
    assert second.pids == (4, 5)
    assert second.frames == ()
    assert slub_traces.parse("No data\n").traces == ()


def test_log_witnesses_of_real_kernels():
    for kernel in ("6.1", "6.12"):
        path = DATA / f"kmsg/{kernel}--objects-remaining-and-netdevice.txt"
        found = kmsg.parse(path.read_text())
        assert [type(one).__name__ for one in found] == [
            "ObjectsRemaining", "CacheNotEmpty", *["NetdeviceWaiting"] * 4,
        ]  # fmt: skip
        assert found[0].cache == "classic_objects"
        assert len(found[0].object_addresses) == 3
        assert found[1].caller.startswith("__do_sys_delete_module+")
        assert (found[2].device, found[2].usage_count) == ("dummy0", 2)
        assert found[0].log.time_seconds < found[2].log.time_seconds
        # /dev/kmsg has the same with another prefix
        records = kmsg.parse((DATA / f"kmsg/{kernel}--dev-kmsg.txt").read_text())
        assert [type(one) for one in records] == [type(one) for one in found]
        assert records[0].log.time_seconds == found[0].log.time_seconds


def test_log_witnesses_of_profiling_and_kmemleak():
    found = kmsg.parse((DATA / "kmsg/6.12--documented-format.txt").read_text())
    alive, left, suspects, disabled = found
    assert alive.module == "leaky"
    assert (left.file, left.source_line, left.function) == ("drivers/leaky/leaky.c", 12, "leak_it")
    assert left.size_bytes == 123904
    assert suspects.count == 3
    assert isinstance(disabled, kmsg.KmemleakDisabled)


def test_kmemleak_a_stack_that_is_cut_is_no_object_but_a_whole_one_without_newline_is():
    text = (DATA / "kmemleak/6.12--documented-format.txt").read_text()
    end = text.index("    do_one_initcall")
    # within the first object, right behind a frame that is whole by itself
    cut = kmemleak.parse(text[: end - 1], errors="collect")
    assert cut.objects == ()
    assert [problem.message for problem in cut.problems] == ["object is cut off"]
    # the same stack with its outermost frame: only the last newline was stripped
    whole = text[:end] + "    ret_from_fork_asm+0x1a/0x30"
    assert len(kmemleak.parse(whole).objects[0].frames) == 3
