"""Rules of the kernel's formats that hold in every sample, whatever the parser is thought to do:
counted and summed by other means than the parsers use.
"""

from __future__ import annotations

import re

import pytest

from kleak.parsers import buddyinfo, kmemleak, meminfo, slabinfo, vmallocinfo, zoneinfo
from kleak.parsers.code_location import AddressKind
from tests.parsers.samples import DATA, SAMPLES, read, sample_id

PAGE = 4096


def samples(report):
    found = [path for path in SAMPLES if path.parent.name == report]
    return pytest.mark.parametrize("sample", found, ids=sample_id)


@samples("vmallocinfo")
def test_a_vmalloc_region_has_a_guard_page_and_its_pages_are_on_its_nodes(sample):
    regions = vmallocinfo.parse(sample.read_text()).regions
    with_pages = [region for region in regions if region.kind == "vmalloc" and region.pages]
    assert len(with_pages) > 100
    for region in with_pages:
        assert region.size_bytes == (region.pages + 1) * PAGE
        assert sum(pages for _, pages in region.details.pages_by_node) == region.pages


@samples("vmallocinfo")
def test_every_row_is_one_region_and_no_word_is_left_over(sample):
    text = sample.read_text()
    regions = vmallocinfo.parse(text).regions
    assert len(regions) == text.count("\n")
    assert len([r for r in regions if r.is_allocation]) == len(re.findall(r" vmalloc\b", text))
    assert sum(r.size_bytes for r in regions) == sum(
        int(size) for size in re.findall(r"(?m)^\S+ +(\d+)", text)
    )
    assert not [region for region in regions if region.details.other or region.kind == "unflagged"]


@samples("vmallocinfo")
def test_addresses_are_known_for_what_they_are(sample):
    report = vmallocinfo.parse(sample.read_bytes())
    case = sample.stem.partition("--")[2]
    kind = {"hashed-addresses": AddressKind.HASHED, "zero-addresses": AddressKind.ZERO}
    expected = kind.get(case, AddressKind.REAL)
    assert report.address_kinds == {expected}
    for region in report.regions:
        if expected is AddressKind.REAL:
            assert region.end - region.start == region.size_bytes
        if expected is AddressKind.ZERO:
            assert region.start is None
            assert region.end is None


@samples("slabinfo")
def test_slabs_hold_their_objects(sample):
    text = sample.read_text()
    caches = slabinfo.parse(text).caches
    assert len(caches) == text.count("\n") - 2
    for cache in caches:
        assert cache.objects == cache.slabs * cache.objects_per_slab
        assert cache.active_objects <= cache.objects
        assert cache.object_size_bytes * cache.objects_per_slab <= cache.pages_per_slab * PAGE


@samples("kmemleak")
def test_every_header_is_one_object(sample):
    text = sample.read_text()
    objects = kmemleak.parse(text).objects
    assert len(objects) == len(re.findall(r"(?m)^unreferenced object", text))
    for item in objects:
        assert len(item.contents) == min(item.size_bytes, 32)
        assert 1 <= len(item.frames) <= 16


@samples("meminfo")
def test_slab_is_the_sum_of_its_two_and_every_field_is_kept(sample):
    text = sample.read_text()
    report = meminfo.parse(text)
    assert report.slab_bytes == report.sreclaimable_bytes + report.sunreclaim_bytes
    kept = [
        value
        for name in meminfo._ATTRIBUTES.values()
        if (value := getattr(report, name)) is not None
    ]
    assert len(kept) + len(report.other_bytes) + len(report.other_counts) == text.count("\n")
    in_kb = sum(int(figure) for figure in re.findall(r"(\d+) kB", text))
    counts = [report.huge_pages_total, report.huge_pages_free]
    assert sum(kept) - sum(counts) + sum(report.other_bytes.values()) == in_kb * 1024


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18"])
def test_zoneinfo_and_buddyinfo_of_one_moment_agree(kernel):
    zones = {
        (zone.node, zone.name): zone
        for zone in zoneinfo.parse((DATA / f"zoneinfo/{kernel}--before.txt").read_text()).zones
    }
    free = buddyinfo.parse((DATA / f"buddyinfo/{kernel}--before.txt").read_text()).zones
    assert free
    for zone in free:
        # two files, read one after the other: a few pages move in between
        assert zones[zone.node, zone.name].pages["free"] == pytest.approx(zone.free_pages, rel=0.02)


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18"])
def test_node_statistics_agree_with_meminfo(kernel):
    zones = zoneinfo.parse((DATA / f"zoneinfo/{kernel}--before.txt").read_text()).zones
    stats = [zone.node_stats for zone in zones if zone.node_stats is not None]
    assert len(stats) == 1
    report = meminfo.parse((DATA / f"meminfo/{kernel}--before.txt").read_text())
    slab = stats[0]["nr_slab_unreclaimable"] * PAGE
    assert slab == pytest.approx(report.sunreclaim_bytes, rel=0.05)
    assert sum(zone.per_cpu_pages or 0 for zone in zones) > 0


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_slub_traces_have_the_planted_leak(kernel):
    sample = DATA / f"slub_traces/{kernel}--kmalloc-2k-leaky-module-loaded.txt"
    records, _ = read("slub_traces", sample.read_text())
    [leak] = [one for one in records if one.caller and one.caller.module == "classic"]
    assert leak.count == 1009
    assert leak.caller.symbol == "classic_leak_kmalloc"
    assert leak.waste_bytes == 1009 * (2048 - 1500)
    assert any(frame.symbol == "do_one_initcall" for frame in leak.frames)
    assert len(records) == len(re.findall(r"(?m)^ +\d+ \S+.* age=", sample.read_text()))
