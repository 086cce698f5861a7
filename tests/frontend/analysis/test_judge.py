"""Whole sessions to verdicts: which leaks are found, and which innocents are left alone."""

import math
from dataclasses import replace
from itertools import pairwise, permutations

import pytest

from kleak.analysis.judge import judge
from kleak.analysis.weights import Fact
from kleak.model.report import Verdict
from kleak.model.session import Circumstances, Target, VmallocRegion
from kleak.model.witnesses import USED, absent
from tests.support.samples import KERNFS, LEAK, regions_of, session, site, stack

VMALLOC = stack(
    "alloc_vmap_area+1 <- __get_vm_area_node+1 <- __vmalloc_node_range_noprof+1 <- "
    "vmalloc_noprof+1 <- leak_it+1 [leaky] <- do_one_initcall+1"
)
DENTRY = stack(
    "kmem_cache_alloc_lru_noprof+1 <- __d_alloc+1 <- d_alloc+1 <- d_alloc_parallel+1 <- "
    "__lookup_slow+1 <- simple_start_creating+1 <- debugfs_create_dir+1 <- leaky_init+1 [leaky]"
)
UEVENT = stack(
    "__kmalloc_node_track_caller_noprof+1 <- kmalloc_reserve+1 <- __alloc_skb+1 <- "
    "alloc_uevent_skb+1 <- kobject_uevent_env+1 <- device_add+1 <- leaky_init+1 [leaky]"
)
RADIX = stack(
    "kmem_cache_alloc_noprof+1 <- radix_tree_node_alloc.constprop.0+1 <- "
    "idr_get_free+1 <- idr_alloc_cyclic+1 <- leaky_init+1 [leaky]"
)
TAGSET = stack(
    "__kmalloc_cache_noprof+1 <- blk_stat_alloc_callback+1 <- blk_mq_init_allocated_queue+1 <- "
    "blk_mq_alloc_queue+1 <- __blk_mq_alloc_disk+1 <- leaky_init+1 [leaky]"
)
CHRDEV = stack("__kmalloc_cache_noprof+1 <- __register_chrdev_region+1 <- leaky_init+1 [leaky]")
SKB_HEAD = stack("kmem_cache_alloc_node_noprof+1 <- __alloc_skb+1 <- leaky_xmit+1 [leaky]")
INNOCENT_STACKS = (KERNFS, DENTRY, UEVENT, RADIX, TAGSET, CHRDEV, SKB_HEAD)


def only(captured):
    (found,) = judge(captured).sites
    return found


# --- true leaks


@pytest.mark.parametrize(
    ("kept", "allocated", "least"),
    [
        ([3], None, Verdict.LIKELY),
        ([3, 3], None, Verdict.LIKELY),
        ([3] * 3, None, Verdict.CONFIRMED),
        ([3] * 5, None, Verdict.CONFIRMED),
        ([3, 4, 2, 5, 3], None, Verdict.CONFIRMED),
        ([1] * 5, [10_000] * 5, Verdict.CONFIRMED),
        ([1] * 2, [10_000] * 2, Verdict.LIKELY),
        ([0, 0, 3, 0, 0], None, Verdict.LIKELY),
        ([0, 0, 3, 0, 0], [3] * 5, Verdict.LIKELY),
        ([0, 0, 3, 0, 0, 3, 0, 0, 3, 0], None, Verdict.LIKELY),
        ([0, 0, 3, 0, 0, 3, 0, 0, 3, 0], [3] * 10, Verdict.LIKELY),
        ([3, 0, 0, 3, 0, 0, 3], None, Verdict.LIKELY),
        ([9, 1, 1, 1, 1], None, Verdict.CONFIRMED),
    ],
)
def test_leak_by_the_modules_own_call(kept, allocated, least):
    assert only(session(site(kept, allocated=allocated))).verdict >= least


@pytest.mark.parametrize(
    "frames",
    [
        "__kmalloc_node_track_caller_noprof+1 <- kstrdup+1 <- leak_it+1 [leaky]",
        "__kmalloc_node_track_caller_noprof+1 <- kvasprintf+1 <- kasprintf+1 <- leak_it+1 [leaky]",
        "__kmalloc_node_track_caller_noprof+1 <- devm_kmalloc+1 <- leak_it+1 [leaky]",
        "__kmalloc_track_caller+1 <- kmemdup+1 <- leak_it+1 [leaky]",
    ],
)
@pytest.mark.parametrize("cycles", [1, 3, 5, 10])
def test_leak_through_a_helper(frames, cycles):
    assert only(session(site([2] * cycles, frames=stack(frames)))).verdict >= Verdict.LIKELY


def test_leak_through_a_constructor_needs_growth():
    frames = stack("__kvmalloc_node_noprof+1 <- alloc_netdev_mqs+1 <- leak_it+1 [leaky]")
    assert only(session(site([1], frames=frames))).verdict is Verdict.POSSIBLE
    assert only(session(site([1, 2, 1], frames=frames))).verdict is Verdict.LIKELY
    assert only(session(site([1] * 3, frames=frames))).verdict is Verdict.CONFIRMED


def test_vmalloc_in_one_cycle_is_confirmed_by_the_kernels_own_list():
    traced = site([1], frames=VMALLOC, allocator="vmalloc", sampled=1)
    assert only(session(traced, regions=regions_of(traced))).verdict is Verdict.CONFIRMED
    assert only(session(traced, regions=None)).verdict is Verdict.LIKELY


# --- innocents


@pytest.mark.parametrize("frames", INNOCENT_STACKS)
@pytest.mark.parametrize("cycles", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("share", [1, 4])
def test_no_innocent_stack_of_a_driver_is_likely_whatever_it_left(frames, cycles, share):
    patterns = {
        "every": [5] * cycles,
        "noisy": [3 + i % 3 for i in range(cycles)],
        "first": [9] + [0] * (cycles - 1),
        "last": [0] * (cycles - 1) + [9],
        "some": [4 * (i % 3 == 1) for i in range(cycles)],
        "fading": [max(8 >> i, 0) for i in range(cycles)],
    }
    allocator = "kmalloc" if "kmalloc" in frames[0].symbol else "kmem_cache"
    for name, kept in patterns.items():
        if not any(kept):
            continue
        allocated = [count * share for count in kept]
        traced = site(kept, frames=frames, allocator=allocator, allocated=allocated)
        found = only(session(traced))
        assert found.verdict < Verdict.LIKELY, (name, found)


@pytest.mark.parametrize("kept", [[9, 0, 0], [9, 0, 0, 0, 0], [2] + [0] * 9])
def test_what_is_set_up_once_is_retained(kept):
    assert only(session(site(kept, frames=CHRDEV))).verdict is Verdict.RETAINED
    assert only(session(site(kept))).verdict is Verdict.RETAINED


def test_region_that_the_kernel_does_not_list_is_no_leak_whatever_the_ledger_says():
    traced = site([2] * 5, frames=VMALLOC, allocator="vmalloc", sampled=10)
    report = judge(session(traced, regions=()))
    assert report.sites[0].verdict is Verdict.POSSIBLE
    assert report.sites[0].score < 20
    assert any("10 outstanding regions are gone" in note for note in report.trust.notes)


def test_free_that_is_late_in_the_last_cycle():
    kept, allocated = [0, 0, 0, 0, 7], [7] * 5
    found = only(session(site(kept, allocated=allocated)))
    assert found.verdict is Verdict.POSSIBLE


def test_what_a_loaded_module_holds_is_not_likely():
    assert only(session(site([3]), still_loaded=True)).verdict < Verdict.LIKELY


def test_kernel_scope_needs_growth():
    frames = stack("__kmalloc_noprof+1 <- alloc_pipe_info+1 <- do_pipe2+1")
    target = Target("symbols", "alloc_pipe_info")
    assert only(session(site([100], frames=frames), target=target)).verdict is Verdict.POSSIBLE
    assert only(session(site([7] * 5, frames=frames), target=target)).verdict is Verdict.LIKELY


# --- confirmed needs more than a high score


def test_losses_keep_growth_from_confirming():
    traced = site([3] * 5)
    assert only(session(traced, lost={"missed frees": 2})).verdict is Verdict.LIKELY


# --- the rule


@pytest.mark.parametrize("kept", [[3], [3] * 5, [9, 0, 0], [0, 0, 1]])
@pytest.mark.parametrize("lost", [{}, {"missed frees": 1}])
def test_score_can_be_worked_out_from_the_evidence(kept, lost):
    found = only(session(site(kept), lost=lost))
    log_odds = sum(item.weight for item in found.evidence)
    assert found.score == pytest.approx(100 / (1 + math.exp(-log_odds)), abs=0.051)
    assert [item.witness for item in found.evidence].count("prior") == 1


def test_witnesses_of_one_map_do_not_count_thrice():
    found = only(session(site([3] * 5)))
    ledger = [i for i in found.evidence if i.witness in ("growth", "survival", "freed")]
    (correction,) = (i for i in found.evidence if i.witness == "correlation")
    assert sum(item.weight for item in ledger) + correction.weight == pytest.approx(3.5)


def test_weight_of_correlation_in_the_table_is_its_greatest():
    lossy = only(session(site([3] * 5), lost={"missed frees": 1}))
    full = only(session(site([3] * 5)))
    weights = [
        item.weight
        for found in (lossy, full)
        for item in found.evidence
        if item.witness == "correlation"
    ]
    assert min(weights) == pytest.approx(Fact.CORRELATED.log_odds)


# --- what is judged, and in which order


def test_sites_without_outstanding_allocations_are_no_sites():
    assert judge(session(site([0, 0], allocated=[5, 5]))).sites == ()


def test_session_without_sites():
    report = judge(session(cycles=3))
    assert report.sites == ()
    assert report.cycles == 3


def test_bookkeeping_is_left_out_and_counted():
    bookkeeping = stack(
        "kmem_cache_alloc_node_noprof+1 <- alloc_vmap_area+1 <- __get_vm_area_node+1 <- "
        "__vmalloc_node_range_noprof+1 <- vmalloc_noprof+1 <- leak_it+1 [leaky]"
    )
    area = site([1], frames=VMALLOC, allocator="vmalloc")
    report = judge(session(area, site([3], frames=bookkeeping, allocator="kmem_cache")))
    assert [found.allocator for found in report.sites] == ["vmalloc"]
    said = "left out: the allocators' own bookkeeping, 3 objects from 1 stack"
    assert said in report.trust.notes


def test_interrupts_victims_are_left_out_and_counted():
    hit = stack("__kmalloc_noprof+1 <- wake_up+1 <- asm_common_interrupt+1 <- leak_it+1 [leaky]")
    report = judge(session(site([1]), site([1], frames=hit)))
    assert len(report.sites) == 1
    said = "left out: what interrupts allocated while leaky ran, 1 object from 1 stack"
    assert said in report.trust.notes


def test_sites_that_differ_in_the_allocators_frames_only_are_one():
    large = (*stack("__kmalloc_large_noprof+0x80"), *LEAK[1:])
    one, two = site([1, 2], sampled=2), site([2, 1], frames=large, object_bytes=16384, sampled=1)
    found = only(session(one, two))
    assert found.outstanding.count == 6
    assert found.outstanding.size_bytes == 3 * 128 + 3 * 16384
    assert [tally.count for tally in found.per_cycle] == [3, 3]
    assert found.requested_bytes == 3 * 123 + 3 * 16379
    assert found.allocator_frames == large[:1]


def test_a_leak_in_a_timer_is_one_whichever_cpu_expires_it():
    ways = [
        (LEAK[0], *stack(f"leak_in_timer+1 [leaky] <- call_timer_fn+1 <- {way}"))
        for way in (
            "run_timer_softirq+1 <- handle_softirqs+1 <- irq_exit_rcu+1",
            "timer_expire_remote+1 <- run_timer_softirq+1 <- handle_softirqs+1",
        )
    ]
    found = only(session(site([3, 0, 2], frames=ways[0]), site([0, 3, 1], frames=ways[1])))
    assert [tally.count for tally in found.per_cycle] == [3, 3, 3]


def test_request_is_unknown_where_one_part_of_it_is():
    large = (*stack("__kmalloc_large_noprof+0x80"), *LEAK[1:])
    other = replace(site([1], frames=large), requested_bytes=None)
    assert only(session(site([1]), other)).requested_bytes is None


def test_frames_are_split_at_the_allocator():
    found = only(session(site([1])))
    assert found.allocator_frames == LEAK[:1]
    assert found.frames == LEAK[1:]


def test_stack_of_allocators_alone_keeps_a_frame():
    frames = stack("__kmalloc_noprof+1 <- kvasprintf+1")
    found = only(session(site([1], frames=frames)))
    assert found.frames == frames[1:]


def test_ranking_is_by_verdict_score_bytes_and_does_not_depend_on_input_order():
    twin = (LEAK[0], *stack("leak_twin+0x1c [leaky]"))
    big = (LEAK[0], *stack("leak_zealously+0x1c [leaky]"))
    sites = [
        site([3] * 3),
        site([3] * 3, frames=twin),
        site([3] * 3, frames=big, object_bytes=256),
        site([9, 0, 0], frames=CHRDEV, object_bytes=4096),
        site([5] * 3, frames=KERNFS, allocator="kmem_cache"),
    ]
    orders = {tuple(s.frames for s in judge(session(*p)).sites) for p in permutations(sites)}
    assert len(orders) == 1
    found = judge(session(*sites)).sites
    assert [s.rank for s in found] == [1, 2, 3, 4, 5]
    assert [s.frames[0].symbol for s in found[:3]] == ["leak_zealously", "leak_it", "leak_twin"]
    assert found[-1].verdict is Verdict.RETAINED
    assert all((a.verdict, a.score) >= (b.verdict, b.score) for a, b in pairwise(found))


def test_trust_names_absent_witnesses_and_keeps_what_capture_said():
    captured = session(site([1]), regions=None)
    witnesses = judge(captured).trust.witnesses
    assert str(witnesses["growth"]).startswith("absent: one cycle")
    assert str(witnesses["vmallocinfo"]).startswith("absent")
    said = replace(captured.trust, witnesses={"vmallocinfo": absent("no CAP_SYSLOG")})
    assert judge(replace(captured, trust=said)).trust.witnesses["vmallocinfo"] == absent(
        "no CAP_SYSLOG"
    )


@pytest.mark.parametrize(
    ("target", "planned", "advice"),
    [
        (Target("module", "leaky"), 1, ", use --cycles 3 or more"),
        (Target("symbols", "*"), 1, ", use --repeat 3 or more"),
        (Target("symbols", "*"), None, ""),
    ],
)
def test_who_has_one_cycle_is_told_the_option_of_his_command(target, planned, advice):
    about = Circumstances(planned_cycles=planned)
    captured = replace(session(site([3]), target=target), circumstances=about)
    said = judge(captured).trust.witnesses["growth"]
    assert said == absent(f"one cycle cannot show it{advice}")


def test_growth_is_absent_with_one_cycle_whatever_capture_said():
    captured = session(site([1]))
    said = replace(captured, trust=replace(captured.trust, witnesses={"growth": USED}))
    assert str(judge(said).trust.witnesses["growth"]).startswith("absent: one cycle")


def test_session_is_not_changed():
    captured = session(site([1]), regions=[VmallocRegion(1, 8192, 1, "vmalloc", None)])
    judge(captured)
    assert captured.trust.witnesses == {}
    assert captured.trust.notes == ()


TIMER = (
    "__kmalloc_cache_noprof+0x11e <- leak_in_timer+0x1c [leaky] <- call_timer_fn+0x2a <- "
    "run_timer_softirq+0x1b <- handle_softirqs+0xda <- irq_exit_rcu+0xa"
)


def test_a_timer_is_one_site_whatever_it_hits():
    idle = site([3, 0, 0], frames=stack(f"{TIMER} <- do_idle+0x1f"))
    reading = site([0, 3, 0], frames=stack(f"{TIMER} <- vfs_read+0xb2"))
    working = site([0, 0, 3], frames=stack(f"{TIMER} <- process_one_work+0x17b"))
    (found,) = judge(session(idle, reading, working)).sites
    assert [tally.count for tally in found.per_cycle] == [3, 3, 3]
    assert found.verdict is Verdict.CONFIRMED


def _pages(*holders):
    pages = site([1] * len(holders), allocator="pages", sampled=len(holders))
    kept = zip(pages.kept, holders, strict=True)
    return replace(pages, kept=tuple(one._replace(holder=holder) for one, holder in kept))


def test_pages_in_the_page_cache_are_retained():
    (found,) = judge(session(_pages("page cache", "page cache", "page cache"))).sites
    assert found.verdict is Verdict.RETAINED
    assert any("page cache" in evidence.says for evidence in found.evidence)


def test_pages_that_nobody_is_known_to_hold_leak():
    (found,) = judge(session(_pages(None, "page cache", None))).sites
    assert found.verdict is Verdict.CONFIRMED


def test_pages_that_are_free_are_no_leak():
    (found,) = judge(session(_pages("free", "free", "free"))).sites
    assert found.verdict is Verdict.POSSIBLE
    assert found.score < 10
