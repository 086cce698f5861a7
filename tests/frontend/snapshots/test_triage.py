"""One look at one snapshot."""

from __future__ import annotations

from kleak.parsers import allocinfo, kmemleak, meminfo, slabinfo, vmallocinfo
from kleak.parsers.proc_modules import parse_modules
from kleak.render.memory import render_triage
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.triage import triage

MEMINFO = "MemTotal: 100000 kB\nMemFree: {free} kB\nSlab: {slab} kB\nSUnreclaim: {slab} kB\n"


def look(**parts):
    return triage(Snapshot("x", **parts))


def abnormal(**parts):
    return {finding.subject: finding for finding in look(**parts).abnormal}


def memory(slab):
    return meminfo.parse(MEMINFO.format(free=99_000 - slab, slab=slab))


def test_a_class_that_stands_out_is_abnormal_with_the_next_command():
    found = abnormal(meminfo=memory(30_000))
    assert set(found) == {"SUnreclaim"}
    assert "30.0 %" in found["SUnreclaim"].says
    assert found["SUnreclaim"].ask


def test_a_quiet_machine_has_nothing_abnormal():
    found = look(meminfo=memory(1_000))
    assert found.abnormal == ()
    assert any("no class of kernel memory stands out" in item.says for item in found.findings)
    shares = {standing.name: standing.share_percent for standing in found.standings}
    assert shares["SUnreclaim"] == 1.0


def test_memory_that_no_class_names_is_abnormal():
    rest = "".join(
        f"{name}: 0 kB\n"
        for name in ("Buffers", "Cached", "AnonPages", "Slab", "PageTables", "VmallocUsed")
    )
    report = meminfo.parse(f"MemTotal: 100000 kB\nMemFree: 60000 kB\n{rest}")
    assert set(abnormal(meminfo=report)) == {"unaccounted"}


def test_the_largest_caches_are_named():
    row = "kmalloc-2k 160 160 2048 16 8 : tunables 0 0 0 : slabdata 900 900 0\n"
    slabs = slabinfo.parse("slabinfo - version: 2.1\n" + row)
    found = abnormal(meminfo=memory(28_800), slabinfo=slabs)
    assert "kmalloc-2k 28.1 MB" in found["SUnreclaim"].says
    assert "large kmalloc" not in found


def test_slab_that_is_in_no_cache_is_large_kmalloc():
    row = "kmem_cache 16 16 256 16 1 : tunables 0 0 0 : slabdata 1 1 0\n"
    slabs = slabinfo.parse("slabinfo - version: 2.1\n" + row)
    found = abnormal(meminfo=memory(28_800), slabinfo=slabs)
    assert "more than 8 kB" in found["large kmalloc"].says


def test_regions_of_text_that_is_gone():
    rows = "0xffffc90000000000-0xffffc90000002000 8192 {} pages=1 vmalloc N0=1\n"
    gone = vmallocinfo.parse(rows.format("0xffffffffc071a048"))
    assert "1 region (8.0 kB)" in abnormal(vmallocinfo=gone)["vmallocinfo"].says
    known = vmallocinfo.parse(rows.format("f+0x1/0x2 [m]"))
    assert abnormal(vmallocinfo=known) == {}


def test_kmemleak_reported_none_and_absent():
    text = 'unreferenced object 0xff00 (size 128):\n  comm "x", pid 1, jiffies 5\n  backtrace:\n'
    assert "1 object (128 B)" in abnormal(kmemleak=kmemleak.parse(text))["kmemleak"].says
    assert abnormal(kmemleak=kmemleak.parse("")) == {}
    absent = look(missing={"kmemleak": "absent"})
    assert [item.says for item in absent.findings if item.subject == "kmemleak"] == ["absent"]
    assert "missing  kmemleak: absent\n" in render_triage(absent)
    refused = look(missing={"vmallocinfo": "refused: Permission denied"})
    assert "missing  vmallocinfo: refused: Permission denied\n" in render_triage(refused)


def test_allocations_of_a_module_that_is_gone():
    sites = allocinfo.parse("allocinfo - version: 1.0\n300 3 a.c:1 [leaky] func:f\n")
    gone = parse_modules("other 1 0 - Live 0xffffffffc0b00000\n")
    there = parse_modules("leaky 1 0 - Live 0xffffffffc0b00000\n")
    assert "module leaky" in abnormal(allocinfo=sites, modules=gone)["allocinfo"].says
    assert abnormal(allocinfo=sites, modules=there) == {}


def test_what_is_abnormal_comes_first():
    order = [
        item.abnormal
        for item in look(meminfo=memory(30_000), missing={"kmemleak": "absent"}).findings
    ]
    assert order == sorted(order, reverse=True)
