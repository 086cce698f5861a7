"""Suspects and verdicts from reports made for the purpose: one thing in each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kleak.model.report import Verdict
from kleak.model.session import Kernel
from kleak.model.witnesses import USED, absent, refused
from kleak.parsers import allocinfo, kmemleak, kmsg, meminfo, slabinfo, slub_traces, vmallocinfo
from kleak.parsers.kallsyms import Symbol
from kleak.parsers.page_owner import StackPages
from kleak.parsers.proc_modules import parse_modules
from kleak.snapshots.judge import analyze
from kleak.snapshots.snapshot import Snapshot

LEAK = "leak_it+0x1f/0x50 [leaky]"
GONE = "0xffffffffc0a9201f"
LOADED = "leaky 12288 0 - Live 0xffffffffc0a92000\nother 1 0 - Live 0xffffffffc0b00000\n"
UNLOADED = "other 1 0 - Live 0xffffffffc0b00000\n"


def region(number, caller, tail="pages=1 vmalloc N0=1", pages=1):
    start = 0xFFFFC90000000000 + number * 0x100000
    size = (pages + 1) * 4096
    return f"0x{start:016x}-0x{start + size:016x} {size} {caller} {tail}\n"


def shots(*parts, **common):
    return [Snapshot(label=str(number), **common, **part) for number, part in enumerate(parts, 1)]


def vmalloc(*numbers, caller=LEAK):
    return {"vmallocinfo": vmallocinfo.parse("".join(region(n, caller) for n in numbers))}


def sites(snapshots):
    return analyze(snapshots, "test").report.sites


def facts(site):
    return {evidence.says for evidence in site.evidence}


# --- vmallocinfo ---------------------------------------------------------------------------


def test_what_appeared_and_did_not_go_is_grouped_by_caller():
    found = sites(
        shots(
            vmalloc(1),
            vmalloc(1, 2, 3),
            vmalloc(1, 2, 3, 4),
            vmalloc(1, 2, 3, 4, 5, 6),
        )
    )
    [site] = found
    assert site.outstanding.count == 5
    assert site.outstanding.size_bytes == 5 * 8192
    assert [step.count for step in site.per_cycle] == [2, 1, 2]
    assert (site.frames[0].module, site.frames[0].symbol) == ("leaky", "leak_it")


def test_what_came_and_went_is_no_leak():
    assert sites(shots(vmalloc(1), vmalloc(1, 2), vmalloc(1))) == ()


def test_what_was_there_from_the_start_is_no_leak():
    assert sites(shots(vmalloc(1, 2), vmalloc(1, 2))) == ()


@pytest.mark.parametrize("tail", ["phys=0xfeb00000 ioremap", "vmap", "sparse"])
def test_mappings_do_not_count_but_are_told(tail):
    before = {"vmallocinfo": vmallocinfo.parse(region(1, LEAK))}
    after = {"vmallocinfo": vmallocinfo.parse(region(1, LEAK) + region(2, LEAK, tail))}
    report = analyze(shots(before, after), "test").report
    assert report.sites == ()
    assert any("not counted" in note and tail.split()[-1] in note for note in report.trust.notes)


def test_unpurged_regions_are_freed_ones():
    row = "0xffffc90000a00000-0xffffc90000a05000 20480 unpurged vm_area\n"
    after = {"vmallocinfo": vmallocinfo.parse(region(1, LEAK) + row)}
    assert sites(shots(vmalloc(1), after)) == ()


def test_a_leak_of_a_module_that_is_gone_is_confirmed_and_of_a_loaded_one_is_not():
    steps = [vmalloc(), vmalloc(1), vmalloc(1, 2), vmalloc(1, 2, 3)]
    gone = [part | {"modules": parse_modules(UNLOADED)} for part in steps]
    [site] = sites(shots(*gone))
    assert site.verdict is Verdict.CONFIRMED
    loaded = [part | {"modules": parse_modules(LOADED)} for part in steps]
    [site] = sites(shots(*loaded))
    assert site.verdict < Verdict.CONFIRMED


def test_growth_in_the_first_step_only_is_set_up():
    [site] = sites(shots(vmalloc(), vmalloc(1, 2), vmalloc(1, 2), vmalloc(1, 2), vmalloc(1, 2)))
    assert site.verdict is Verdict.RETAINED


def test_a_bare_caller_is_named_by_a_snapshot_that_knew_it():
    symbols = (
        Symbol(0xFFFFFFFFC0A92000, "t", "leak_it", "leaky"),
        Symbol(0xFFFFFFFFC0A92050, "t", "other_thing", "leaky"),
    )
    before, after = shots(vmalloc(caller=GONE), vmalloc(1, caller=GONE))
    [site] = sites([replace(before, module_symbols=symbols), after])
    assert (site.frames[0].module, site.frames[0].symbol) == ("leaky", "leak_it")
    assert site.frames[0].offset == 0x1F
    # a symbol far below says nothing
    far = (Symbol(0xFFFFFFFFC0A00000, "t", "far_below", "leaky"),)
    [site] = sites([replace(before, module_symbols=far), after])
    assert site.frames[0].symbol is None
    # and two snapshots that disagree say nothing either
    third = replace(after, module_symbols=(replace(symbols[0], name="x"), symbols[1]))
    [site] = sites([replace(before, module_symbols=symbols), third])
    assert site.frames[0].symbol is None


def test_a_module_that_lands_elsewhere_at_each_load_is_one_site():
    rows = [region(1, "0xffffffffc0a9201f"), region(2, "0xffffffffc0b3401f")]
    parts = [
        {"vmallocinfo": vmallocinfo.parse("".join(rows[:count]) + region(9, "f+0x1/0x2"))}
        for count in range(3)
    ]
    [site] = sites(shots(*parts))
    assert site.outstanding.count == 2
    assert [step.count for step in site.per_cycle] == [1, 1]


def hidden(rows, span):
    return "".join(f"{span} {row.split(None, 1)[1]}" for row in rows.splitlines(keepends=True))


def test_without_addresses_equal_rows_are_counted():
    zero = "0x0000000000000000-0x0000000000000000"
    parts = [
        {"vmallocinfo": vmallocinfo.parse(hidden(region(1, LEAK) * count, zero))}
        for count in (2, 5)
    ]
    [site] = sites(shots(*parts))
    assert site.outstanding.count == 3


def test_hashed_addresses_serve_within_one_boot_and_not_across():
    first = "0x00000000f893ea91-0x000000006fb5c64a"
    second = "0x00000000aaaaaaaa-0x00000000bbbbbbbb"
    parts = [
        {"vmallocinfo": vmallocinfo.parse(hidden(region(1, LEAK), first))},
        {"vmallocinfo": vmallocinfo.parse(hidden(region(1, LEAK), second))},
    ]
    # one boot: another region than before, so one came and one went
    [site] = sites(shots(*parts, boot_id="a"))
    assert site.outstanding.count == 1
    # two boots: the same number of equal regions
    one, two = shots(*parts)
    report = analyze([replace(one, boot_id="a"), replace(two, boot_id="b")], "test").report
    assert report.sites == ()
    assert any("2 boots" in note for note in report.trust.notes)


def test_task_stacks_and_module_memory_are_retained():
    for caller in ("kernel_clone+0xc2/0x430", "load_module+0x784/0x21b0"):
        [site] = sites(shots(*(vmalloc(*range(count), caller=caller) for count in (0, 1, 3))))
        assert site.verdict is Verdict.RETAINED


# --- kmemleak ------------------------------------------------------------------------------


def unreferenced(address, *frames, size=128, jiffies=5):
    text = f"unreferenced object 0x{address:x} (size {size}):\n"
    text += f'  comm "insmod", pid 331, jiffies {jiffies}\n  backtrace (crc 0):\n'
    return text + "".join(f"    {frame}\n" for frame in frames)


STACK = ("__kmalloc_noprof+0x2ee/0x3a0", LEAK, "do_one_initcall+0x5b/0x320")


def scan(*objects):
    return {"kmemleak": kmemleak.parse("".join(objects))}


def test_kmemleak_objects_are_grouped_by_stack_without_the_allocator():
    text = [unreferenced(0xFF00 + n * 256, *STACK) for n in range(3)]
    [site] = sites(shots(scan(*text)))
    assert site.outstanding.count == 3
    assert site.outstanding.size_bytes == 384
    assert site.frames[0].symbol == "leak_it"
    assert [frame.symbol for frame in site.allocator_frames] == ["__kmalloc_noprof"]
    assert site.allocator == "kmalloc"


def test_transient_objects_are_set_aside_and_what_stays_is_likely():
    stays, goes = unreferenced(0xFF00, *STACK), unreferenced(0xEE00, "f+0x1/0x2")
    report = analyze(shots(scan(stays, goes), scan(stays)), "test").report
    [site] = report.sites
    assert site.frames[0].symbol == "leak_it"
    assert site.verdict is Verdict.LIKELY
    assert "kmemleak: 1 object was gone at a later scan and set aside as transient" in (
        report.trust.notes
    )


def test_another_object_at_the_same_address_is_another_object():
    report = analyze(
        shots(
            scan(unreferenced(0xFF00, *STACK, jiffies=5)),
            scan(unreferenced(0xFF00, *STACK, jiffies=9)),
        ),
        "test",
    ).report
    [site] = report.sites
    assert any("unreferenced in one report" in says for says in facts(site))


def test_kmemleak_and_vmallocinfo_meet_by_address():
    address = 0xFFFFC90000000000 + 0x100000
    stack = ("__vmalloc_node_range_noprof+0x1/0x2", "vmalloc_noprof+0x1/0x2", LEAK, "f+0x1/0x2")
    both = [
        vmalloc(9) | scan(),
        vmalloc(1, 9) | scan(unreferenced(address, *stack, size=4096)),
        vmalloc(1, 9) | scan(unreferenced(address, *stack, size=4096)),
    ]
    [site] = sites(shots(*both))
    assert {evidence.witness for evidence in site.evidence} >= {"kmemleak", "vmallocinfo"}
    assert site.allocator == "vmalloc"


# --- counters ------------------------------------------------------------------------------


def counted(calls, module="leaky"):
    row = f"{calls * 100} {calls} drivers/leaky.c:12 [{module}] func:leak_it\n"
    return {"allocinfo": allocinfo.parse("allocinfo - version: 1.0\n" + row)}


def test_allocinfo_gives_file_and_line():
    parts = [counted(n) | {"modules": parse_modules(UNLOADED)} for n in (1, 4, 7, 10)]
    [site] = sites(shots(*parts))
    assert site.frames[0].source.file == "drivers/leaky.c"
    assert site.frames[0].source.line == 12
    assert site.outstanding.count == 9
    assert site.outstanding.size_bytes == 900
    assert site.verdict is Verdict.CONFIRMED


def test_a_counter_that_goes_up_and_down_is_no_leak():
    [site] = sites(shots(*(counted(n) for n in (10, 14, 9, 13, 11, 12))))
    assert site.verdict < Verdict.LIKELY
    assert site.per_cycle is None


def test_allocinfo_and_kmemleak_of_one_function_are_one_site():
    parts = [counted(n) | scan(unreferenced(0xFF00, *STACK)) for n in (1, 2)]
    [site] = sites(shots(*parts))
    assert site.frames[0].source.line == 12
    assert len(site.frames) == 2
    assert {evidence.witness for evidence in site.evidence} >= {"kmemleak", "allocinfo"}


def test_page_owner_counts_pages_by_stack():
    frames = kmemleak.parse(unreferenced(1, "__alloc_pages_noprof+0x1/0x2", LEAK)).objects[0].frames
    parts = [{"page_stacks": (StackPages(pages, frames),)} for pages in (4, 8, 12, 16)]
    [site] = sites(shots(*parts))
    assert site.outstanding.size_bytes == 12 * 4096
    assert site.frames[0].symbol == "leak_it"


def cache(objects, name="kmalloc-2k", slabs=None):
    slabs = objects // 16 + 1 if slabs is None else slabs
    row = f"{name} {objects} {slabs * 16} 2048 16 8 : tunables 0 0 0 : slabdata {slabs} {slabs} 0\n"
    return {"slabinfo": slabinfo.parse("slabinfo - version: 2.1\n" + row)}


def traced(objects):
    text = f"  {objects} {LEAK} age=1 pid=1\n        {LEAK}\n        f+0x1/0x2\n"
    return {"alloc_traces": {"kmalloc-2k": slub_traces.parse(text)}}


def test_a_growing_cache_is_named_with_those_merged_into_it():
    aliases = {"kmalloc-2k": ("biovec-128", "names")}
    parts = [cache(n) | {"slab_aliases": aliases} for n in (100, 1100, 2100, 3100)]
    [site] = sites(shots(*parts))
    assert site.allocator == "cache kmalloc-2k (merged with biovec-128, names)"
    assert site.outstanding.count == 3000
    assert site.outstanding.size_bytes == 3000 * 2048
    assert site.frames == ()


def test_reclaimable_caches_are_retained_and_noise_is_nothing():
    [site] = sites(shots(*(cache(n, "dentry") for n in (100, 1100, 2100, 3100))))
    assert site.verdict is Verdict.RETAINED
    assert sites(shots(*(cache(n) for n in (100, 132, 90, 140, 101, 110)))) == ()


def test_call_sites_that_explain_a_cache_are_told_instead_of_it():
    parts = [cache(n) | traced(n) for n in (100, 1109, 2118, 3127)]
    [site] = sites(shots(*parts))
    assert site.frames[0].symbol == "leak_it"
    assert site.outstanding.count == 3027
    assert site.outstanding.size_bytes == 3027 * 2048
    assert any("cache kmalloc-2k" in says for says in facts(site))
    # both tell of one growth, so only the stronger counts
    growth = [one.weight for one in site.evidence if one.witness in ("alloc_traces", "slabinfo")]
    growing = [weight for weight in growth if weight > 0]
    assert len(growing) == 2
    [correction] = [one.weight for one in site.evidence if one.witness == "correlation"]
    assert correction == max(growing) - sum(growing)


# --- log -----------------------------------------------------------------------------------


def test_what_the_kernel_itself_says():
    text = (
        "[ 1.0] BUG objs (Tainted: G OE): Objects remaining on __kmem_cache_shutdown()\n"
        "[ 1.1] Object 0xff413ce546f73000 @offset=0\n"
        "[ 2.0] drivers/leaky.c:12 module leaky func:leak_it has 300 allocated at module unload\n"
        "[ 3.0] unregister_netdevice: waiting for dummy0 to become free. Usage count = 2\n"
    )
    report = analyze(shots({}, {"log": kmsg.parse(text)}), "test").report
    assert {site.allocator for site in report.sites} == {"cache objs", "allocation"}
    assert all(site.verdict is Verdict.LIKELY for site in report.sites)
    assert any("dummy0" in note for note in report.trust.notes)


# --- the report ----------------------------------------------------------------------------


def test_ranks_are_by_verdict_then_score_and_the_score_is_the_sum_of_the_evidence():
    import math

    steps = [vmalloc(), vmalloc(1), vmalloc(1, 2), vmalloc(1, 2, 3)]
    parts = [
        part | cache(n) | scan(unreferenced(0xFF00, "g+0x1/0x2"))
        for part, n in zip(steps, (100, 1100, 2100, 3100), strict=True)
    ]
    found = sites(shots(*parts))
    assert [site.rank for site in found] == [1, 2, 3]
    keys = [(site.verdict, site.score) for site in found]
    assert keys == sorted(keys, reverse=True)
    for site in found:
        odds = sum(evidence.weight for evidence in site.evidence)
        assert site.score == round(100 / (1 + math.exp(-odds)), 1)


def test_damage_makes_the_report_incomplete():
    one, two = shots(vmalloc(1), vmalloc(1))
    report = analyze([one, replace(two, damaged={"vmallocinfo": 2})], "test").report
    assert not report.trust.complete
    assert report.trust.lost == {"damaged records of vmallocinfo": 2}


def test_absent_witnesses_are_named_with_the_reason():
    one, two = shots(
        vmalloc(1), vmalloc(1), missing={"kmemleak": "absent", "slabinfo": "refused: x"}
    )
    trust = analyze([one, two], "test").report.trust
    assert trust.witnesses["vmallocinfo"] == USED
    assert trust.witnesses["kmemleak"] == absent()
    assert trust.witnesses["slabinfo"] == refused("x")


def test_the_kernel_of_the_snapshots_is_that_of_the_report():
    one, two = shots(vmalloc(1), vmalloc(1), kernel=Kernel("6.1.0", "x86_64"))
    assert analyze([one, two], "test").report.kernel.release == "6.1.0"


def test_meminfo_is_followed():
    texts = [
        f"MemTotal: 1000 kB\nMemFree: {900 - n} kB\nSUnreclaim: {n} kB\n" for n in (1, 9, 17, 25)
    ]
    parts = [{"meminfo": meminfo.parse(text)} for text in texts]
    memory = analyze(shots(*parts, dropped_caches=True), "test").memory
    assert memory.get("SUnreclaim").trend.per_step == 8 * 1024
    assert memory.get("SUnreclaim").trend.grows is True
