from dataclasses import replace

import pytest

from kleak.analysis.judge import judge
from kleak.analysis.redact import redact_report, redact_session
from kleak.analysis.selection import GROUPINGS, ORDERS, group, sort, top
from kleak.model.report import Verdict
from kleak.model.session import Frame, Tally
from tests.support.samples import KERNFS, LEAK, session, site, stack
from tests.support.saved import everything, hostile

INNER = stack("kmalloc+1 <- helper+1 [other] <- leak_it+9 [leaky] <- leaky_init+1 [leaky]")


def captured():
    return session(
        site([3] * 5, sampled=4),
        site([90] * 5, frames=KERNFS, allocator="kmem_cache", object_bytes=8, sampled=4),
        site([1] * 5, frames=INNER, object_bytes=4096),
        site([2] * 5, frames=(LEAK[0], replace(LEAK[1], offset=99), *LEAK[2:])),
    )


def groups(grouping):
    made = captured()
    report = group(judge(made), grouping, [made])
    assert report.grouped_by == grouping
    return {one.key: one for one in report.groups}, report


def test_orders():
    report = judge(captured())
    assert [one.rank for one in sort(report, "rank").sites] == [1, 2, 3, 4]
    by_bytes = [one.outstanding.size_bytes for one in sort(report, "bytes").sites]
    assert by_bytes == sorted(by_bytes, reverse=True)
    by_count = [one.outstanding.count for one in sort(report, "count").sites]
    assert by_count == sorted(by_count, reverse=True)
    assert by_bytes != [one.outstanding.size_bytes for one in sort(report, "count").sites]
    for order in ORDERS:
        assert {one.rank for one in sort(report, order).sites} == {1, 2, 3, 4}


def test_top_tells_what_is_missing():
    report = judge(captured())
    assert top(report, 4) is report
    assert top(report, 1).every_site == report.sites
    assert top(report, 1).trust.notes[-1] == "3 more sites are not shown"
    assert top(report, 3).trust.notes[-1] == "1 more site is not shown"
    assert [one.rank for one in top(report, 2).sites] == [1, 2]


def test_by_function():
    found, _ = groups("function")
    assert found["leak_it [leaky]"].sites == 2
    assert found["leak_it [leaky]"].outstanding == Tally(25, 25 * 128)
    assert found["leak_it [leaky]"].verdict is Verdict.CONFIRMED
    assert set(found) == {"leak_it [leaky]", "__kernfs_new_node", "helper [other]"}


def test_by_module_the_innermost_counts():
    found, _ = groups("module")
    assert {key: one.sites for key, one in found.items()} == {"leaky": 3, "other": 1}


def test_by_allocator():
    found, _ = groups("allocator")
    assert {key: one.outstanding.count for key, one in found.items()} == {
        "kmalloc": 30,
        "kmem_cache": 450,
    }


def test_by_process_counts_what_was_kept_and_says_so():
    found, report = groups("process")
    assert {key: one.outstanding for key, one in found.items()} == {
        "insmod 331": Tally(8, 4 * 128 + 4 * 8)
    }
    assert found["insmod 331"].sites == 2
    assert (
        found["insmod 331"].verdict
        is max(
            one.verdict
            for one in report.sites
            if one.allocator == "kmem_cache" or one.frames == LEAK
        )
        or found["insmod 331"].verdict is Verdict.CONFIRMED
    )
    assert report.trust.notes[-1] == "processes are known of 8 of 480 objects: see --keep"


@pytest.mark.parametrize("grouping", [one for one in GROUPINGS if one not in ("site", "process")])
def test_groups_have_all_that_sites_have(grouping):
    found, report = groups(grouping)
    for measure in ("count", "size_bytes"):
        assert sum(getattr(one.outstanding, measure) for one in found.values()) == sum(
            getattr(one.outstanding, measure) for one in report.sites
        )


def test_groups_with_most_bytes_come_first():
    _, report = groups("function")
    sizes = [one.outstanding.size_bytes for one in report.groups]
    assert sizes == sorted(sizes, reverse=True)


# --- redacted


@pytest.mark.parametrize("made", [everything(), hostile(), captured()])
def test_addresses_processes_host_and_directories_are_gone(made):
    made = replace(
        made,
        target=replace(made.target, path="/home/alice/secret/leaky.ko"),
        trust=replace(made.trust, notes=("not the one in /home/alice/secret/leaky.ko: no names",)),
    )
    shown = repr(redact_session(made)) + repr(redact_report(judge(made)))
    assert "alice" not in shown
    assert "leaky.ko" in shown
    for one in made.sites:
        for kept in one.kept:
            assert str(kept.address) not in shown
            assert f"{kept.address:x}" not in shown
            assert f"comm={kept.comm!r}" not in shown
    for region in made.vmalloc_regions or ():
        assert str(region.address) not in shown
    if made.circumstances.host is not None:
        assert f"host={made.circumstances.host!r}" not in shown
    for answer in made.circumstances.answers:
        assert answer.text not in shown


def test_code_without_a_name_has_no_address_left():
    frames = (LEAK[0], Frame(None, None, 0xFFFFFFFFC0A9201F), *LEAK[1:])
    report = redact_report(judge(session(site([3] * 5, frames=frames))))
    assert Frame(None, None, 0) in report.sites[0].frames
    assert str(0xFFFFFFFFC0A9201F) not in repr(report)


def test_the_verdicts_stay():
    report = judge(captured())
    redacted = redact_report(report)
    assert [(one.verdict, one.score, one.frames) for one in redacted.sites] == [
        (one.verdict, one.score, one.frames) for one in report.sites
    ]
