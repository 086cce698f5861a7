"""Which sites are folded under which, by pointers and by time."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest

from kleak.analysis.grouping import arrange
from kleak.analysis.judge import judge
from kleak.analysis.merge import Judged, merge
from kleak.analysis.selection import ORDERS, sort
from kleak.commands.options.decision import Decision
from kleak.errors import ExitStatus
from kleak.model.report import Verdict
from kleak.model.session import Allocation, Answer, Circumstances
from kleak.render.report_json import render
from kleak.render.table import render as table
from tests.frontend.render.test_report_json import SCHEMA
from tests.support.samples import KERNFS, session, site, stack

OUTER = "leaky_init+0x40 [leaky] <- do_one_initcall+0x58 <- do_init_module+0x60"
RECORD = stack(f"__kmalloc+0x1 <- make_record+0x1c [leaky] record.c:12 <- {OUTER}")
NAME = stack(f"kmalloc+0x1 <- kstrdup+0x3c <- make_record+0x30 [leaky] record.c:15 <- {OUTER}")
DATA = stack(
    f"__kmalloc+0x1 <- make_data+0x10 [leaky] <- make_record+0x44 [leaky] record.c:17 <- {OUTER}"
)
CYCLES = 3


def leak(frames, start, *, a_cycle=5, step=100, first_ns=1000, pid=331, **more):
    """A site with an object every 100 ns, at addresses from ``start`` on, from ``first_ns`` on."""
    made = site([a_cycle] * CYCLES, frames=frames, **more)
    size = made.cycles[0].allocated.size_bytes // a_cycle
    kept = tuple(
        Allocation(
            start + i * 4096, size, size, first_ns + i * step, 1 + i // a_cycle, pid, "insmod"
        )
        for i in range(a_cycle * CYCLES)
    )
    return replace(made, kept=kept)


def pointers(holder, child, offset=8, *, number=None):
    """The n-th object of ``holder`` points to the n-th of ``child``."""
    pairs = list(zip(holder.kept, child.kept, strict=True))[:number]
    return "".join(f"{one.address:#x} {offset} {other.address:#x}\n" for one, other in pairs)


def captured(*sites, text=None):
    made = session(*sites)
    answers = () if text is None else (Answer("pointers", 7, text),)
    return replace(made, circumstances=Circumstances(answers=answers))


def parents(saved):
    """The innermost function of each site that has a parent, with the parent's and by what."""
    report = judge(saved)
    assert [one.rank for one in report.sites] == list(range(1, len(report.sites) + 1))
    names = {one.rank: place(one) for one in report.sites}
    return {
        place(one): (names[one.parent.rank], one.parent.by)
        for one in report.sites
        if one.parent is not None
    }


def place(one):
    return f"{one.frames[0].symbol}+{one.frames[0].offset:#x}"


RECORD_AT, NAME_AT, DATA_AT = "make_record+0x1c", "make_record+0x30", "make_data+0x10"
record = leak(RECORD, 0xFFFF888000000000, object_bytes=96)
name = leak(NAME, 0xFFFF888100000000, first_ns=1010, object_bytes=16)
data = leak(DATA, 0xFFFF888200000000, first_ns=1020, object_bytes=512)
OTHER = stack(f"__kmalloc+0x1 <- other+0x10 [leaky] <- {OUTER}")


# --- by pointers


def test_what_all_records_point_to_hangs_on_them():
    text = pointers(record, name) + pointers(record, data, 16)
    assert parents(captured(record, name, data, text=text)) == {
        NAME_AT: (RECORD_AT, "pointers"),
        DATA_AT: (RECORD_AT, "pointers"),
    }


def test_says_how_many_and_where():
    report = judge(captured(record, name, text=pointers(record, name, 24)))
    (child,) = [one for one in report.sites if one.parent is not None]
    assert child.parent.rank == 1
    assert child.parent.says == (
        "older objects there point to each of the 15 that were checked at offset 24"
    )


def test_a_chain_is_a_chain():
    text = pointers(record, name) + pointers(name, data) + pointers(record, data, 16)
    assert parents(captured(record, name, data, text=text)) == {
        NAME_AT: (RECORD_AT, "pointers"),
        DATA_AT: (NAME_AT, "pointers"),
    }


def test_no_pointer_no_parent_however_the_times_are():
    assert parents(captured(record, name, data, text="")) == {}
    assert parents(captured(record, name, text=pointers(record, record))) == {}


def test_one_object_that_nothing_points_to_is_enough_against_it():
    text = pointers(record, name, number=14)
    assert parents(captured(record, name, text=text)) == {}


def test_memory_that_held_the_address_before_is_no_evidence():
    older = leak(NAME, 0xFFFF888100000000, first_ns=990, object_bytes=16)
    assert parents(captured(record, older, text=pointers(record, older))) == {}


@pytest.mark.parametrize(
    ("allocator", "offset", "folded"),
    [("kmalloc", 48, False), ("kmalloc", 40, True), ("kmem_cache", 40, False)],
)
def test_the_free_list_of_one_cache_is_no_evidence(allocator, offset, folded):
    one = replace(record, allocator=allocator)
    other = leak(OTHER, 0xFFFF888300000000, first_ns=1050, object_bytes=96, allocator=allocator)
    found = parents(captured(one, other, text=pointers(one, other, offset)))
    assert bool(found) is folded


def test_the_middle_of_an_object_of_another_size_is_evidence():
    assert parents(captured(record, name, text=pointers(record, name, 48)))


def test_nothing_hangs_on_what_is_less_surely_a_leak():
    weak = leak(KERNFS, 0xFFFF888400000000, object_bytes=96)
    report = judge(captured(weak, name, text=pointers(weak, name)))
    assert [one.parent for one in report.sites] == [None, None]
    assert report.sites[0].verdict > report.sites[1].verdict


# --- by time


def test_without_memory_to_read_the_times_tell():
    assert parents(captured(record, name, data)) == {
        NAME_AT: (RECORD_AT, "time"),
        DATA_AT: (RECORD_AT, "time"),
    }
    (child, *_) = [one for one in judge(captured(record, name)).sites if one.parent]
    assert child.parent.says == (
        "allocated together: in turn with it, one for one, 15 times by make_record(); "
        "no memory was read to see who points to whom"
    )


@pytest.mark.parametrize(
    "other",
    [
        leak(OTHER, 0xFFFF888300000000, first_ns=1010),
        leak(NAME, 0xFFFF888300000000, first_ns=1010, a_cycle=7),
        leak(NAME, 0xFFFF888300000000, first_ns=1010, pid=332),
        leak(NAME, 0xFFFF888300000000, first_ns=9000),
        leak(NAME, 0xFFFF888300000000, first_ns=1150),
        leak(NAME, 0xFFFF888300000000, first_ns=1010, step=90),
        replace(leak(NAME, 0xFFFF888300000000, first_ns=1010), kept=()),
        leak((NAME[0], *NAME[1:3], replace(NAME[3], offset=0x99), *NAME[4:]), 1, first_ns=1010),
    ],
    ids=["function", "counts", "task", "later", "shifted", "drifting", "not kept", "another call"],
)
def test_times_alone_must_match_in_everything(other):
    assert parents(captured(record, other)) == {}


def test_two_pairs_are_no_pattern():
    one = leak(RECORD, 0xFFFF888000000000, a_cycle=1)
    other = leak(NAME, 0xFFFF888100000000, a_cycle=1, first_ns=1010)
    assert parents(captured(one, other))
    two = [replace(each, cycles=each.cycles[:2], kept=each.kept[:2]) for each in (one, other)]
    assert parents(captured(*two)) == {}


# --- what becomes of it


FAMILY = captured(
    record, name, data, leak(OTHER, 1), text=pointers(record, name) + pointers(name, data)
)


@pytest.mark.parametrize("order", ORDERS)
def test_a_family_stays_together_in_any_order(order):
    shown = [place(one) for one in sort(judge(FAMILY), order).sites]
    start = shown.index(RECORD_AT)
    assert shown[start : start + 3] == [RECORD_AT, NAME_AT, DATA_AT]


def test_one_missing_kfree_is_one_finding():
    report = judge(FAMILY)
    document = json.loads(render(report))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["totals"]["confirmed"]["sites"] == 4
    assert document["totals"]["confirmed"]["findings"] == 2
    assert "from 2 places (2 more hang on these) in 3 cycles" in table(report, width=200)
    rows = [line for line in table(report).splitlines() if "\\_ confirmed" in line]
    assert len(rows) == 2
    assert Decision(Verdict.LIKELY.label, strict=False).status_of(report) is ExitStatus.FOUND


def test_merged_sessions_keep_their_families():
    again = replace(FAMILY, kernel=replace(FAMILY.kernel, release="6.1.0"))
    judged = [Judged(f"{i}.kleak", one, judge(one)) for i, one in enumerate((FAMILY, again))]
    merged = merge(judged)
    names = {one.rank: place(one) for one in merged.sites}
    assert {place(one): names[one.parent.rank] for one in merged.sites if one.parent} == {
        NAME_AT: RECORD_AT,
        DATA_AT: NAME_AT,
    }


BY_WRITE = stack("do_syscall_64+0x90 <- entry_SYSCALL_64_after_hwframe+0x76")
BY_IOCTL = stack("__x64_sys_ioctl+0x90 <- do_syscall_64+0x90")
CLEAN = session(cycles=CYCLES)


def merged_places(*sessions):
    report = merge([Judged(f"{i}.kleak", one, judge(one)) for i, one in enumerate(sessions)])
    assert [one.rank for one in report.sites] == list(range(1, len(report.sites) + 1))
    assert sort(report, "bytes").sites, "the line of parents ends"
    names = {one.rank: place(one) for one in report.sites}
    return [(place(one), one.parent and names[one.parent.rank]) for one in report.sites]


def less_sure(one):
    """The same, but some were freed, in numbers that vary from cycle to cycle."""
    return replace(one, cycles=site([4, 5, 6], allocated=[7] * CYCLES).cycles)


def test_a_line_reached_in_two_ways_that_hangs_on_itself_is_not_lost_in_merging():
    """Nodes of one line of source, made by write(), hang on those that ioctl() made."""
    first = less_sure(leak((*RECORD[:3], *BY_IOCTL), 0xFFFF888000000000, object_bytes=96))
    second = leak((*RECORD[:3], *BY_WRITE), 0xFFFF888100000000, first_ns=1050, object_bytes=96)
    both = captured(first, second, text=pointers(first, second))
    child, parent = sorted(judge(both).sites, key=lambda one: one.parent is None)
    assert child.parent.rank == parent.rank
    assert child.score > parent.score
    assert merged_places(both, CLEAN) == [(RECORD_AT, None)]


def test_two_sessions_that_contradict_each_other_lose_nothing():
    def of(parent, child):
        """``child`` hangs on ``parent``, and the session is surer of it than of the parent."""
        holder = less_sure(leak(parent, 0xFFFF888000000000, object_bytes=96))
        held = leak(child, 0xFFFF888100000000, first_ns=1050, object_bytes=16)
        return captured(holder, held, text=pointers(holder, held))

    found = merged_places(of(RECORD, NAME), of(NAME, RECORD))
    assert sorted(found, key=lambda one: one[1] is not None) in (
        [(RECORD_AT, None), (NAME_AT, RECORD_AT)],
        [(NAME_AT, None), (RECORD_AT, NAME_AT)],
    )


@pytest.mark.parametrize("found", [[(0, 0)], [(0, 1), (1, 0)], [(0, 1), (1, 2), (2, 0), (3, 2)]])
def test_no_site_is_lost_whatever_hangs_on_what(found):
    sites = judge(captured(record, name, data, leak(OTHER, 1), text="")).sites
    arranged = arrange(sites, [(child, parent, "pointers", "said") for child, parent in found])
    assert {place(one) for one in arranged} == {place(one) for one in sites}
    assert [one.rank for one in arranged] == [1, 2, 3, 4]
    for one in arranged:
        assert one.parent is None or one.parent.rank < one.rank
