"""What the kernel's log, counters and registries say of a site."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kleak.analysis import memory
from kleak.analysis.correlations import COUNTERS
from kleak.analysis.judge import judge
from kleak.analysis.redact import redact_report
from kleak.analysis.weights import Fact
from kleak.analysis.witnesses import allocinfo, kernel_log, slabinfo
from kleak.model.report import Report, Verdict
from kleak.model.session import (
    HELD_BY_ITS_TASK,
    CycleTally,
    MemorySample,
    Session,
    Tally,
    TracedSite,
)
from kleak.render import report_json
from kleak.store.reader import read_session
from tests.support.paths import TESTS
from tests.support.samples import session, site, stack, told

DATA = TESTS / "data"
OBJECTS = stack("kmem_cache_alloc_noprof+1 <- make_object+1 [leaky] <- leaky_init+1 [leaky]")
PROC = stack("kmem_cache_alloc_noprof+1 <- __proc_create+1 <- proc_create_data+1 <- f+1 [leaky]")


def log(traced: TracedSite, *records: str) -> Session:
    """A session whose log has these records, as warnings."""
    text = "".join(f"4,{i},{i}000,-;{record}\n" for i, record in enumerate(records))
    return told(session(traced), ("kernel log", text))


# --- allocation tags in the log

TAG = "drivers/misc/leaky.c:12 module leaky func:leak_it has 384 allocated at module unload"


def test_tag_of_the_sites_line():
    traced = site([3, 3])
    finding = kernel_log.judge_tags(traced, log(traced, TAG, TAG))
    assert finding is not None
    assert finding.fact is Fact.TAG_LEFT
    assert finding.says == "the kernel log has 768 B of leaky.c:12 left at unload, twice"


@pytest.mark.parametrize(
    "frame",
    ["leak_it+1 [leaky] leaky.c:14", "leak_it.isra.0+1 [leaky]", "outer+1 [leaky] leaky.c:12"],
    ids=["another line of the call", "no line", "inlined"],
)
def test_tag_of_the_sites_call(frame):
    traced = site([3], frames=stack(f"__kmalloc+1 <- {frame}"))
    finding = kernel_log.judge_tags(traced, log(traced, TAG))
    assert finding is not None
    assert "384 B" in finding.says


@pytest.mark.parametrize(
    "frames",
    [
        stack("__kmalloc+1 <- leak_it+1 [leaky] leaky.c:44"),
        stack("__kmalloc+1 <- other+1 [leaky] leaky.c:13"),
        stack("__kmalloc+1 <- helper+1 <- leak_it+1 [leaky]"),
        stack("__kmalloc+1 <- leak_it+1 [neighbour] leaky.c:12"),
    ],
)
def test_tag_of_another_line(frames):
    traced = site([3], frames=frames)
    assert kernel_log.judge_tags(traced, log(traced, TAG)) is None


# --- caches that were destroyed


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_objects_in_a_destroyed_cache_are_joined_by_size_and_number(kernel):
    text = (DATA / "kmsg" / f"{kernel}--dev-kmsg.txt").read_text()
    traced = site([3], frames=OBJECTS, allocator="kmem_cache", object_bytes=336)
    finding = kernel_log.judge_caches(traced, told(session(traced), ("kernel log", text)))
    assert finding is not None
    assert finding.fact is Fact.CACHE_LEFT
    assert "3 objects left in classic_objects" in finding.says
    for other in (
        site([2], frames=OBJECTS, allocator="kmem_cache", object_bytes=336),
        site([3], frames=OBJECTS, allocator="kmem_cache", object_bytes=320),
        site([3], frames=OBJECTS, object_bytes=336),
    ):
        assert kernel_log.judge_caches(other, told(session(other), ("kernel log", text))) is None


def test_a_destroyed_cache_confirms_in_one_cycle():
    text = (DATA / "kmsg" / "6.12--dev-kmsg.txt").read_text()
    traced = site([3], frames=OBJECTS, allocator="kmem_cache", object_bytes=336)
    plain = judge(session(traced)).sites[0]
    (found,) = judge(told(session(traced), ("kernel log", text))).sites
    assert plain.verdict < found.verdict is Verdict.CONFIRMED


# --- what else the log says


def notes(*records: str) -> list[str]:
    return [
        note.removeprefix("kernel log: ")
        for note in kernel_log.notes(log(site([3]), *records))
        if note.startswith("kernel log: ")
    ]


@pytest.mark.parametrize(
    "record",
    [
        "proc_dir_entry 'driver/leaky' already registered",
        "debugfs: File 'state' in directory 'leaky' already present!",
        "debugfs: Directory 'leaky' with parent '/' already present!",
        "sysfs: cannot create duplicate filename '/kernel/slab/leaky'",
        "kmem_cache of name 'leaky_objects' already exists",
        "remove_proc_entry: removing non-empty directory '/proc/x', leaking at least 'y'",
        "refcount_t: underflow; use-after-free.",
        "unregister_netdevice: waiting for dummy0 to become free. Usage count = 2",
        "leaky: probe of 0000:00:03.0 failed with error -12",
        "WARNING: CPU: 1 PID: 331 at lib/list_debug.c:62 leaky_exit+0x1c/0x40 [leaky]",
    ],
)
def test_lines_that_are_shown(record):
    assert notes(record) == [record]
    assert notes(*[record] * 3) == [f"{record} (3 times)"]


@pytest.mark.parametrize(
    "record",
    [
        "leaky: loading out-of-tree module taints kernel.",
        "leaky: module verification failed: signature and/or required key missing",
        "Modules linked in: leaky(OE) [last unloaded: leaky(OE)]",
        " leaky_init+0x1c/0xff0 [leaky]",
        "RIP: 0010:leaky_exit+0x1c/0x40 [leaky]",
        "sneaky: not the module",
        "leaky2: another module",
        "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    ],
)
def test_lines_that_are_not_shown(record):
    assert notes(record) == []


def test_chatter_below_a_warning_is_not_shown():
    text = "6,1,1000,-;leaky: 3 devices\n4,2,2000,-;leaky: bad\n SUBSYSTEM=leaky\n"
    found = kernel_log.notes(told(session(site([3])), ("kernel log", text)))
    assert found == ["kernel log: leaky: bad"]


def test_kinds_of_lines_beyond_a_few_are_counted():
    found = notes(*(f"leaky: error {i}" for i in range(13)))
    assert len(found) == kernel_log.SHOWN_LINES + 1
    assert found[-1] == "8 more kinds of lines like these"


def test_lines_of_the_log_are_not_shared():
    report = judge(log(site([3]), "leaky: user alice did this"))
    assert any("alice" in note for note in report.trust.notes)
    assert not any("alice" in note for note in redact_report(report).trust.notes)


# --- allocinfo

ROWS = "allocinfo - version: 1.0\n#     <size>  <calls> <tag info>\n"


def rows(calls: int, *, line: int = 12) -> str:
    return f"{ROWS}{calls * 128:>12} {calls:>8} fs/proc/generic.c:{line} func:__proc_create\n"


@pytest.mark.parametrize(
    ("before", "after", "fact"),
    [
        (rows(41), rows(44), Fact.ROWS_GREW),
        (ROWS, rows(7), Fact.ROWS_GREW),
        (rows(41), rows(42), Fact.ROWS_DID_NOT_GROW),
        (rows(41), ROWS, Fact.ROWS_DID_NOT_GROW),
        (rows(41), rows(43), None),
        (ROWS, ROWS, None),
    ],
)
def test_rows_of_the_callers_function(before, after, fact):
    traced = site([3], frames=PROC)
    finding = allocinfo.judge(
        traced, told(session(traced), ("allocinfo", before), ("allocinfo", after))
    )
    assert (None if finding is None else finding.fact) is fact


STRING = stack(
    "__kmalloc_node_track_caller_noprof+1 <- kstrdup+1 <- property_entries_dup+1 <- "
    "software_node_register+1 <- leaky_init+1 [leaky]"
)


def counted(**calls: int) -> str:
    lines = (
        f"{number * 64:>12} {number:>8} drivers/base/swnode.c:{line} func:{function}\n"
        for line, (function, number) in enumerate(calls.items(), 1)
    )
    return ROWS + "".join(lines)


@pytest.mark.parametrize(
    ("frames", "allocator"),
    [
        (STRING, "kmalloc"),
        (STRING[2:], "kmalloc"),
        (stack("alloc_vmap_area+1 <- __vmalloc_noprof+1 <- property_entries_dup+1"), "vmalloc"),
    ],
    ids=["a wrapper", "only the call site is known", "an area"],
)
@pytest.mark.parametrize("grown", [0, 3])
def test_rows_of_a_caller_whose_allocator_has_rows_are_of_other_objects(frames, allocator, grown):
    """kstrdup() has the row of all strings; property_entries_dup() that of its arrays only."""
    traced = site([1] * 3, frames=frames, allocator=allocator)
    before = counted(kstrdup=1009, alloc_vmap_area=331, property_entries_dup=7)
    after = counted(kstrdup=1012, alloc_vmap_area=334, property_entries_dup=7 + grown)
    made = told(session(traced), ("allocinfo", before), ("allocinfo", after))
    assert allocinfo.judge(traced, made) is None
    plain, asked = (judge(one).sites[0].score for one in (session(traced), made))
    assert plain == asked


def test_allocinfo_read_once_says_nothing():
    traced = site([3], frames=PROC)
    assert allocinfo.judge(traced, told(session(traced), ("allocinfo", rows(3)))) is None


# --- slabinfo


def slab(name: str, active: int, size: int = 2048, per_slab: int = 16) -> str:
    slabs = -(-active // per_slab)
    return (
        "slabinfo - version: 2.1\n"
        f"{name} {active} {slabs * per_slab} {size} {per_slab} 8 : tunables 0 0 0 : "
        f"slabdata {slabs} {slabs} 0\n"
    )


@pytest.mark.parametrize(
    ("name", "allocator", "grown", "fact"),
    [
        ("kmalloc-2k", "kmalloc", 1009, Fact.CACHE_GREW),
        ("kmalloc-rnd-03-2k", "kmalloc", 1039, Fact.CACHE_GREW),
        ("kmalloc-2k", "kmalloc", 11, Fact.CACHE_DID_NOT_GROW),
        ("kmalloc-2k", "kmalloc", 701, None),
        ("leaky_objects", "kmem_cache", 1009, Fact.CACHE_GREW),
        ("leaky_objects", "kmem_cache", 0, None),
        ("leaky_objects", "kmalloc", 1009, None),
    ],
)
def test_cache_of_the_objects_size(name, allocator, grown, fact):
    traced = site([1009], allocator=allocator, object_bytes=2048, sampled=3)
    said = (("slabinfo", slab(name, 331)), ("slabinfo", slab(name, 331 + grown)))
    finding = slabinfo.judge(traced, told(session(traced), *said))
    assert (None if finding is None else finding.fact) is fact


def test_what_cpus_keep_in_slabs_of_their_own_is_noise():
    traced = site([61], object_bytes=2048, sampled=3)
    said = (("slabinfo", slab("kmalloc-2k", 331)), ("slabinfo", slab("kmalloc-2k", 331 + 61)))
    assert slabinfo.judge(traced, told(session(traced), *said)) is None


def test_real_slabinfo_of_a_leak():
    """1009 objects of kmalloc-2k a load, four loads (tests/data/README.md)."""
    before, after = (
        (DATA / "slabinfo" / f"6.12--{when}.txt").read_text()
        for when in ("before", "after-4-leaks")
    )
    traced = site([1009] * 4, object_bytes=2048, sampled=3)
    finding = slabinfo.judge(
        traced, told(session(traced), ("slabinfo", before), ("slabinfo", after))
    )
    assert finding is not None
    assert finding.fact is Fact.CACHE_GREW


def mixed(*objects: tuple[int, int], kept: tuple[int, ...]) -> TracedSite:
    """A site with so many objects of each size, of which those of sizes ``kept`` are."""
    count = sum(number for number, _ in objects)
    total = sum(number * size for number, size in objects)
    one = site([count], sampled=len(kept))
    return replace(
        one,
        cycles=(CycleTally(Tally(count, total), Tally()),),
        kept=tuple(
            each._replace(size_bytes=size) for each, size in zip(one.kept, kept, strict=True)
        ),
    )


@pytest.mark.parametrize(
    ("traced", "judged"),
    [
        (mixed((1009, 64), (1009, 192), kept=(64, 192, 64)), False),
        (mixed((1009, 64), (1009, 192), kept=(64, 64)), False),
        (mixed((1009, 64), (1009, 192), kept=()), False),
        (mixed((2018, 128), kept=(128, 128)), True),
    ],
    ids=["kept", "not kept", "nothing kept", "one size"],
)
@pytest.mark.parametrize("grown", [0, 2018])
def test_objects_of_several_sizes_are_in_no_cache_of_their_mean(traced, judged, grown):
    said = [("slabinfo", slab("kmalloc-128", number, 128, 32)) for number in (331, 331 + grown)]
    assert (slabinfo.judge(traced, told(session(traced), *said)) is not None) is judged


def test_objects_that_the_ledger_has_no_size_of_are_not_judged():
    """Two sites that are one, of which only the smaller has its sizes kept."""
    parts = [site([number], object_bytes=2048, sampled=number // 1009) for number in (331, 1009)]
    whole = site([1340], object_bytes=2048, sampled=1)
    said = [("slabinfo", slab("kmalloc-2k", number)) for number in (331, 1671)]
    assert slabinfo.judge(whole, told(session(*parts), *said)) is None
    parts = [site([number], object_bytes=2048, sampled=1) for number in (331, 1009)]
    assert slabinfo.judge(whole, told(session(*parts), *said)) is not None


# --- memory

MB = 1 << 20
NOISE = memory.NOISE_BYTES_PER_CPU["SUnreclaim"]


def grown(
    traced: TracedSite, sizes: list[int], fields: tuple[str, ...] = ("SUnreclaim",)
) -> Session:
    """A session in which these fields, unreclaimable slab or others, were so much after each
    cycle."""
    made = session(traced)
    samples = [MemorySample(1, "start", 0, Tally(), dict.fromkeys(fields, 7 * MB))]
    samples += [
        MemorySample(10 * i, "settled", i, Tally(), dict.fromkeys(fields, 20 * MB + size))
        for i, size in enumerate(sizes, 1)
    ]
    samples.append(MemorySample(99, "end", 0, Tally(), samples[-1].meminfo_bytes))
    return replace(made, circumstances=replace(made.circumstances, samples=tuple(samples)))


def test_growth_that_the_sites_explain():
    traced = site([1009] * 5, object_bytes=2048)
    step = 1009 * 2048
    report = judge(grown(traced, [step * i + (i % 2) * 8192 for i in range(1, 6)]))
    assert report.memory is not None
    assert report.memory.explained_percent == 100.0
    assert not any(one.unexplained for one in report.memory.classes)
    assert any("explained: 100 %" in note for note in report.trust.notes)
    assert any(item.witness == "meminfo" and item.weight > 0 for item in report.sites[0].evidence)
    (found,) = report_json.document(report)["memory"]["classes"]
    assert found["held_bytes"] == 4 * step
    assert json.dumps(found)


def test_growth_that_is_missing_in_the_sites():
    traced = site([100] * 5, object_bytes=2048)
    report = judge(grown(traced, [MB * i for i in range(1, 6)]))
    assert report.memory is not None
    assert report.memory.explained_percent == pytest.approx(100 * 100 * 2048 / MB, abs=0.1)
    assert [one.unexplained for one in report.memory.classes] == [True]
    assert any(note.startswith("unexplained: unreclaimable slab") for note in report.trust.notes)


@pytest.mark.parametrize(
    "course",
    [
        [0, NOISE // 4, NOISE // 2, NOISE * 3 // 4, NOISE],
        [0, 0, 0, 3 * MB, -MB],
        [0, 3 * MB, 2 * MB, MB, 2 * MB],
    ],
    ids=["too little", "a spike", "not steady"],
)
def test_noise_is_no_growth(course):
    traced = site([3] * 5)
    report = judge(grown(traced, course))
    assert report.memory is not None
    assert report.memory.explained_percent is None
    assert "memory, cycles 2 to 5: no class of kernel memory grew by more than noise" in (
        report.trust.notes
    )
    assert not any(note.startswith("unexplained") for note in report.trust.notes)


def test_stacks_of_tasks_are_no_growth_of_vmalloc():
    traced = site([3] * 5)
    course = [MB * i for i in range(1, 6)]
    tasks = judge(grown(traced, course, ("VmallocUsed", "KernelStack")))
    assert tasks.memory is not None
    assert [one.grew for one in tasks.memory.classes] == [False]


def test_class_that_did_not_grow_contradicts():
    traced = site([1009] * 5, object_bytes=2048)
    (found,) = judge(grown(traced, [0, 8192, 4096, 12288, 8192])).sites
    assert any(item.witness == "meminfo" and item.weight < 0 for item in found.evidence)
    assert found.verdict < Verdict.CONFIRMED


def test_pages_in_the_page_cache_are_not_of_no_class():
    held = site([400] * 5, allocator="pages", object_bytes=4096, sampled=3)
    held = replace(held, kept=[one._replace(holder="page cache") for one in held.kept])
    free = replace(held, kept=[one._replace(holder=HELD_BY_ITS_TASK) for one in held.kept])
    assert memory.class_of(held) is None
    assert memory.class_of(free) == "pages"


def test_one_cycle_has_no_account():
    assert judge(grown(site([1009]), [MB])).memory is None


# --- together


def test_witnesses_that_contradict_each_other_are_shown():
    traced = site([1009] * 3, object_bytes=2048, sampled=3)
    stays = slab("kmalloc-2k", 331)
    text = f"4,1,1,-;{TAG}\n"
    made = told(session(traced), ("slabinfo", stays), ("slabinfo", stays), ("kernel log", text))
    (found,) = judge(made).sites
    says = {item.witness: item.says for item in found.evidence}
    assert says["disagreement"].startswith("slabinfo against allocation tags")
    assert found.verdict < Verdict.CONFIRMED


def test_counters_of_one_allocation_count_once():
    traced = site([1009] * 3, object_bytes=2048, sampled=3)
    made = told(
        session(traced),
        ("slabinfo", slab("kmalloc-2k", 331)),
        ("slabinfo", slab("kmalloc-2k", 331 + 3027)),
        ("kernel log", f"4,1,1,-;{TAG}\n"),
    )
    (found,) = judge(made).sites
    books = {"allocation tags", "slabinfo"}
    capped = [i.weight for i in found.evidence if i.witness in books]
    (correction,) = [i.weight for i in found.evidence if "kernel's counters" in i.says]
    assert len(capped) == 2
    assert sum(capped) + correction == pytest.approx(COUNTERS.cap)


def test_counters_make_no_pool_that_fills_likely():
    """All that they prove is that it was not freed; kept on purpose it is not freed either."""
    traced = site([700, 300, 100, 0, 0, 0], object_bytes=2048, sampled=3)
    made = told(
        session(traced),
        ("slabinfo", slab("kmalloc-2k", 331)),
        ("slabinfo", slab("kmalloc-2k", 331 + 1100)),
        ("kernel log", f"4,1,1,-;{TAG}\n"),
    )
    (found,) = judge(made).sites
    assert found.verdict < Verdict.LIKELY


# --- captured

SESSIONS = DATA / "sessions" / "witnesses"


def evidence(report: Report, function: str, witness: str) -> list[str]:
    (found,) = [one for one in report.sites if one.frames[0].symbol == function]
    return [item.says for item in found.evidence if item.witness == witness]


def test_captured_leaks_are_explained():
    """17 areas, 1009 objects and 127 blocks of pages in each of 5 loads."""
    report = judge(read_session(SESSIONS / "6.12--classic-leaks.kleak"))
    assert report.memory is not None
    grew = {one.name: one for one in report.memory.classes if one.grew}
    assert set(grew) == {"SUnreclaim", "VmallocUsed", "pages"}
    assert report.memory.explained_percent is not None
    assert 98 < report.memory.explained_percent <= 100
    for one in grew.values():
        assert not one.unexplained
        assert abs(one.growth_bytes - one.held_bytes) * 50 < one.held_bytes
    assert evidence(report, "classic_leak_kmalloc", "slabinfo") == [
        "/proc/slabinfo has 4985 objects more in kmalloc-2k, the ledger 5045"
    ]
    assert evidence(report, "classic_leak_kmalloc", "meminfo")
    assert evidence(report, "classic_leak_pages", "meminfo")
    assert not any("disagreement" in repr(one.evidence) for one in report.sites)


def test_growth_is_missed_if_a_site_is():
    """Without the site that leaks the slab objects, its growth has no explanation."""
    made = read_session(SESSIONS / "6.12--classic-leaks.kleak")
    kept = tuple(one for one in made.sites if one.allocator != "kmalloc")
    report = judge(replace(made, sites=kept))
    assert report.memory is not None
    assert [one.name for one in report.memory.classes if one.unexplained] == ["SUnreclaim"]
    assert any(note.startswith("unexplained: unreclaimable slab") for note in report.trust.notes)


def test_captured_log_of_a_destroyed_cache():
    """3 objects of a cache, and 1009 of kmalloc, in each of 3 loads."""
    report = judge(read_session(SESSIONS / "6.12--classic-objects.kleak"))
    assert evidence(report, "classic_leak_object", "kernel log") == [
        "the kernel log counts 9 objects left in classic_objects, a cache that was destroyed"
    ]
    assert not evidence(report, "classic_leak_object", "meminfo"), "the growth is not theirs"
    assert "kernel log: cache classic_objects was destroyed with 3 objects in it (3 times)" in (
        report.trust.notes
    )
    assert report.sites[0].frames[0].symbol == "classic_leak_object"
