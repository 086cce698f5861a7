"""The classes of /proc/meminfo over snapshots, and what is said of them."""

from __future__ import annotations

import pytest

from kleak.parsers import meminfo, vmallocinfo, zoneinfo
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.witnesses.meminfo import (
    UNACCOUNTED,
    follow,
    per_cpu_list_bytes,
    stacks_in_vmalloc,
    unaccounted,
)

KB = 1024
BASE = {
    "MemTotal": 100_000, "MemFree": 60_000, "Buffers": 1_000, "Cached": 20_000, "Shmem": 500,
    "AnonPages": 5_000, "SReclaimable": 2_000, "SUnreclaim": 3_000, "KernelStack": 800,
    "PageTables": 300, "VmallocUsed": 1_500, "Percpu": 200,
}  # fmt: skip
NAMED = 60_000 + 1_000 + 20_000 + 5_000 + 2_000 + 3_000 + 300 + 1_500 + 200


def shot(dropped=True, zones=None, regions=None, **changes):
    fields = BASE | changes
    text = "".join(f"{name}: {value} kB\n" for name, value in fields.items())
    return Snapshot(
        label="x", dropped_caches=dropped, meminfo=meminfo.parse(text), zoneinfo=zones,
        vmallocinfo=regions,
    )  # fmt: skip


def says(shots):
    return " | ".join(follow(shots).says)


def test_unaccounted_is_what_no_class_names():
    assert unaccounted(shot(), stacks_inside=True) == (100_000 - NAMED) * KB
    # without CONFIG_VMAP_STACK the stacks are not in VmallocUsed
    assert unaccounted(shot(), stacks_inside=False) == (100_000 - NAMED - 800) * KB
    # where nobody knows, they are taken to be inside
    assert unaccounted(shot(), stacks_inside=None) == (100_000 - NAMED) * KB


def test_pages_on_the_lists_of_the_cpus_are_free():
    text = (
        "Node 0, zone Normal\n  pages free 10\n  pagesets\n    cpu: 0\n      count: 100\n"
        "    cpu: 1\n      count: 25\n"
    )
    one = shot(zones=zoneinfo.parse(text))
    assert per_cpu_list_bytes(one) == 125 * 4096
    assert unaccounted(one, stacks_inside=True) == (100_000 - NAMED) * KB - 125 * 4096


def test_an_absent_total_leaves_the_class_out():
    assert unaccounted(Snapshot("x"), stacks_inside=True) is None
    no_total = Snapshot("x", meminfo=meminfo.parse("MemFree: 1 kB\n"))
    assert unaccounted(no_total, stacks_inside=True) is None
    assert follow([no_total, no_total]).get(UNACCOUNTED) is None
    assert follow([no_total, no_total]).get("SUnreclaim") is None
    assert follow([shot()]) is None


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("SUnreclaim", "SUnreclaim"), ("VmallocUsed", "VmallocUsed"), ("Percpu", "Percpu"),
        ("KernelStack", "KernelStack"), ("PageTables", "PageTables"),
    ],
)  # fmt: skip
def test_the_class_that_grows_is_named_with_its_rate(field, name):
    shots = [
        shot(MemFree=60_000 - 4_032 * step, **{field: BASE[field] + 4_032 * step})
        for step in range(5)
    ]
    trends = follow(shots)
    growing = {item.name for item in trends.classes if item.owner == "kernel" and item.grows}
    # a class that no other figure moves with leaves the rest alone
    expected = {name} if field != "KernelStack" else {name, UNACCOUNTED}
    assert growing == expected
    assert trends.get(name).trend.per_step == 4_032 * KB
    assert f"{name} grows by 3.9 MB a step" in says(shots)


def test_what_is_accounted_nowhere_is_found():
    shots = [shot(MemFree=60_000 - 2_032 * step) for step in range(4)]
    assert follow(shots).get(UNACCOUNTED).trend.grows is True
    assert "page_owner" in says(shots)


def test_page_cache_is_told_from_loss():
    """MemFree falls as in a leak, and all of it is page cache."""
    shots = [shot(MemFree=60_000 - 9_000 * step, Cached=20_000 + 9_000 * step) for step in range(5)]
    trends = follow(shots)
    assert trends.get("MemFree").trend.falls is True
    assert not [item for item in trends.classes if item.owner == "kernel" and item.grows]
    text = says(shots)
    assert "MemFree fell by 35.2 MB, which decides nothing by itself" in text
    assert "caches changed by +35.2 MB" in text
    assert "no class of kernel memory grows by more than noise" in text


def test_what_the_cpus_have_not_added_up_yet_is_no_growth():
    text = "Node 0, zone Normal\n  pages free 10\n  pagesets\n    cpu: 0\n      count: 0\n"
    text += "  vm stats threshold: 125\n    cpu: 1\n      count: 0\n  vm stats threshold: 125\n"
    zones = zoneinfo.parse(text)

    def growing(step, field):
        shots = [shot(zones=zones, **{field: BASE[field] + step * n}) for n in range(5)]
        return follow(shots).get(field).grows

    # 2 CPUs with 125 pages each: 1000 kB that a figure may be off
    assert growing(249, "PageTables") is False
    assert growing(251, "PageTables") is True
    # these are one counter
    assert growing(1, "VmallocUsed") is True


def test_shared_memory_is_no_cache():
    shots = [
        shot(MemFree=60_000 - step, Cached=20_000 + step, Shmem=500 + step)
        for step in (0, 8_000, 16_000, 24_000)
    ]
    assert follow(shots).get("page cache").trend.total == 0
    assert follow(shots).get("Shmem").trend.grows is True


def test_two_snapshots_are_said_to_be_too_few():
    text = says([shot(), shot(SUnreclaim=9_000)])
    assert "2 snapshots cannot tell growth from noise; 4 can" in text


def test_caches_that_were_not_dropped_are_mentioned():
    assert "not dropped" in says([shot(), shot(dropped=None)])
    assert "not dropped" not in says([shot(), shot()])


def test_stacks_in_vmalloc_are_seen_by_their_rows():
    row = "0xffffc90000000000-0xffffc90000005000 20480 {}+0x1/0x2 pages=4 vmalloc N0=4\n"
    stacks = vmallocinfo.parse(row.format("kernel_clone"))
    other = vmallocinfo.parse(row.format("f"))
    assert stacks_in_vmalloc([shot(regions=stacks)]) is True
    assert stacks_in_vmalloc([shot(regions=other)]) is False
    assert stacks_in_vmalloc([shot()]) is None
