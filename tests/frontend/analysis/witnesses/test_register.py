"""What each witness but growth finds, case by case."""

from dataclasses import replace

import pytest

from kleak.analysis.weights import Fact
from kleak.analysis.witnesses import freed, kmemleak, origin, size, survival, vmallocinfo
from kleak.model.session import Reachability, Target
from tests.support.samples import KERNFS, LEAK, regions_of, session, site, stack

AREA = stack(
    "alloc_vmap_area+1 <- __get_vm_area_node+1 <- __vmalloc_node_range_noprof+1 <- "
    "vmalloc_noprof+1 <- leak_it+1 [leaky]"
)


# --- survival


def test_survival():
    traced = site([3, 3])
    assert survival.judge(traced, session(traced)).fact is Fact.SURVIVED_UNLOAD
    lossy = session(traced, lost={"missed frees": 1})
    assert survival.judge(traced, lossy).fact is Fact.SURVIVED_LOSSY


def test_survival_of_nothing_while_the_module_is_loaded():
    late = site([0, 3])
    assert survival.judge(late, session(late, still_loaded=True)).fact is Fact.STILL_LOADED
    early = site([1, 3])
    assert survival.judge(early, session(early, still_loaded=True)).fact is Fact.SURVIVED_UNLOAD


def test_survival_means_little_where_nothing_is_unloaded():
    traced = site([3])
    running = session(traced, target=Target("symbols", "pipe_*"))
    assert survival.judge(traced, running).fact is Fact.STILL_ALLOCATED


# --- freed


@pytest.mark.parametrize(
    ("kept", "allocated", "fact"),
    [
        ([3, 3], None, Fact.NONE_FREED),
        ([1], [4], Fact.SOME_FREED),
        ([1] * 5, [10_000] * 5, Fact.SOME_FREED),
        ([1], [10_000], Fact.RARELY_KEPT),
        ([3, 5, 2, 4, 6], [10_000] * 5, Fact.RARELY_KEPT),
        ([30, 50, 20], [10_000] * 3, Fact.SOME_FREED),
        ([0, 0, 7], [7, 7, 7], Fact.IN_FLIGHT),
        ([0, 0, 7], [0, 0, 15], Fact.SOME_FREED),
        ([0, 7, 0], [7, 7, 7], Fact.SOME_FREED),
    ],
)
def test_freed(kept, allocated, fact):
    traced = site(kept, allocated=allocated)
    assert freed.judge(traced, session(traced)).fact is fact


# --- origin


@pytest.mark.parametrize(
    ("allocator", "frames", "fact"),
    [
        ("kmalloc", LEAK, Fact.DIRECT),
        (
            "kmalloc",
            stack("__kmalloc_noprof+1 <- kvasprintf+1 <- kasprintf+1 <- f+1 [leaky]"),
            Fact.DIRECT,
        ),
        (
            "kmalloc",
            stack("__kmalloc_node_track_caller_noprof+1 <- kstrdup+1 <- f+1 [leaky]"),
            Fact.DIRECT,
        ),
        (
            "kmalloc",
            stack(
                "__kmalloc_node_track_caller_noprof+1 <- devm_kmalloc+1 <- "
                "devm_kstrdup+1 <- f+1 [leaky]"
            ),
            Fact.DIRECT,
        ),
        ("vmalloc", AREA, Fact.DIRECT),
        ("kmem_cache", KERNFS, Fact.REGISTRY),
        (
            "kmem_cache",
            stack(
                "kmem_cache_alloc_lru_noprof+1 <- __d_alloc+1 <- d_alloc+1 <- "
                "d_alloc_parallel+1 <- lookup_slow+1 <- f+1 [leaky]"
            ),
            Fact.REGISTRY,
        ),
        (
            "kmalloc",
            stack("__kmalloc_cache_noprof+1 <- kobject_uevent_env+1 <- f+1 [leaky]"),
            Fact.REGISTRY,
        ),
        (
            "kmem_cache",
            stack(
                "kmem_cache_alloc_noprof+1 <- create_cache+1 <- "
                "__kmem_cache_create_args+1 <- f+1 [leaky]"
            ),
            Fact.REGISTRY,
        ),
        (
            "kmem_cache",
            stack(
                "kmem_cache_alloc_noprof+1 <- xas_alloc+1 <- xas_create+1 <- "
                "xa_alloc+1 <- f+1 [leaky]"
            ),
            Fact.REGISTRY,
        ),
        (
            "kmalloc",
            stack("__kmalloc_node_noprof+1 <- alloc_netdev_mqs+1 <- f+1 [leaky]"),
            Fact.CONSTRUCTOR,
        ),
        (
            "kmalloc",
            stack(
                "__kmalloc_noprof+1 <- kvasprintf_const+1 <- kobject_set_name_vargs+1 "
                "<- dev_set_name+1 <- f+1 [leaky]"
            ),
            Fact.CONSTRUCTOR,
        ),
        (
            "kmalloc",
            stack("__kmalloc_cache_noprof+1 <- alloc_workqueue+1 <- f+1 [leaky]"),
            Fact.CONSTRUCTOR,
        ),
        (
            "pages",
            stack("__alloc_pages_noprof+1 <- __page_frag_alloc_align+1 <- f+1 [leaky]"),
            Fact.DIRECT,
        ),
        (
            "pages",
            stack(
                "__alloc_pages_noprof+1 <- __page_frag_cache_refill+1 <- "
                "__page_frag_alloc_align+1 <- __napi_alloc_skb+1 <- f+1 [leaky]"
            ),
            Fact.REGISTRY,
        ),
        (
            "kmalloc",
            stack("__kmalloc_cache_noprof+1 <- __root_device_register+1 <- f+1 [leaky]"),
            Fact.CONSTRUCTOR,
        ),
        (
            "kmalloc",
            stack("__kmalloc_cache_noprof+1 <- __register_chrdev+1 <- f+1 [leaky]"),
            Fact.DEEP,
        ),
        (
            "kmalloc",
            stack("__kmalloc_cache_noprof+1 <- a_alloc+1 <- b_alloc+1 <- c_alloc+1 <- f+1 [leaky]"),
            Fact.DEEP,
        ),
        (
            "kmalloc",
            stack("__kmalloc_cache_noprof+1 <- ieee80211_alloc_hw_nm+1 [mac80211] <- f+1 [leaky]"),
            Fact.OTHER_MODULE,
        ),
        (
            "kmem_cache",
            stack("kmem_cache_alloc_node_noprof+1 <- __alloc_skb+1 <- f+1 [leaky]"),
            Fact.SKB_HEAD,
        ),
        (
            "kmalloc",
            stack(
                "__kmalloc_node_track_caller_noprof+1 <- kmalloc_reserve+1 <- "
                "__alloc_skb+1 <- f+1 [leaky]"
            ),
            Fact.SKB_DATA,
        ),
        (
            "kmem_cache",
            stack(
                "kmem_cache_alloc_node_noprof+1 <- kmalloc_reserve+1 <- "
                "__alloc_skb+1 <- f+1 [leaky]"
            ),
            Fact.SKB_DATA,
        ),
        ("kmalloc", stack("__kmalloc_cache_noprof+1 <- do_one_initcall+1"), Fact.NO_SCOPE_FRAME),
    ],
)
def test_origin(allocator, frames, fact):
    traced = site([1], frames=frames, allocator=allocator)
    assert origin.judge(traced, session(traced)).fact is fact


def test_origin_of_symbols_counts_less_than_of_a_module():
    traced = site([1], frames=stack("__kmalloc_noprof+1 <- alloc_pipe_info+1 <- do_pipe2+1"))
    found = origin.judge(traced, session(traced, target=Target("symbols", "alloc_pipe*")))
    assert found.fact is Fact.DIRECT_SYMBOL
    assert found.fact.log_odds < Fact.DIRECT.log_odds


# --- size


def test_size_speaks_from_a_megabyte_on():
    small, large = site([1], object_bytes=(1 << 20) - 1), site([2], object_bytes=1 << 20)
    assert size.judge(small, session(small)) is None
    assert size.judge(large, session(large)).says == "holds 2 MB"


# --- vmallocinfo


def area(kept=1, **options):
    return site(
        [kept], frames=AREA, allocator="vmalloc", object_bytes=16384, sampled=kept, **options
    )


def test_regions_still_there():
    traced = area(3)
    found = vmallocinfo.judge(traced, session(traced, regions=regions_of(traced)))
    assert found.fact is Fact.REGION_THERE
    assert "all 3" in found.says
    assert "VM_ALLOC" in found.says


def test_regions_gone():
    traced = area(3)
    captured = session(traced, regions=regions_of(area(2)))
    assert vmallocinfo.judge(traced, captured).fact is Fact.REGION_GONE
    assert vmallocinfo.missed_frees(traced, captured) == 3


def test_some_regions_gone():
    traced = area(3)
    captured = session(traced, regions=regions_of(traced)[:2])
    found = vmallocinfo.judge(traced, captured)
    assert found.fact is Fact.REGION_PARTLY
    assert "2 of 3" in found.says
    assert vmallocinfo.missed_frees(traced, captured) == 1


@pytest.mark.parametrize(
    "change", [{"kind": "ioremap"}, {"size_bytes": 8192}, {"size_bytes": 1 << 20}]
)
def test_anothers_region_at_the_address_is_none_of_the_sites(change):
    traced = area()
    regions = [replace(regions_of(traced)[0], **change)]
    assert vmallocinfo.judge(traced, session(traced, regions=regions)).fact is Fact.REGION_GONE


def test_guard_page_does_not_matter():
    traced = area()
    regions = [replace(regions_of(traced)[0], size_bytes=16384 + 4096)]
    assert vmallocinfo.judge(traced, session(traced, regions=regions)).fact is Fact.REGION_THERE


def test_no_evidence_without_addresses():
    traced = area()
    assert vmallocinfo.judge(traced, session(traced, regions=None)) is None
    unsampled = replace(traced, kept=())
    assert vmallocinfo.judge(unsampled, session(unsampled)) is None
    slab = site([1], sampled=1)
    assert vmallocinfo.judge(slab, session(slab)) is None


# --- kmemleak


@pytest.mark.parametrize(
    ("said", "allocator", "fact"),
    [
        (Reachability(unreferenced=6), "kmalloc", Fact.UNREFERENCED),
        (Reachability(unreferenced=1), "percpu", Fact.UNREFERENCED),
        (
            Reachability(unreferenced=1, asked=1, known=1, referenced=1),
            "kmalloc",
            Fact.UNREFERENCED,
        ),
        (Reachability(same_stack=2), "kmem_cache", Fact.UNREFERENCED),
        (Reachability(asked=1, known=1, referenced=1), "kmalloc", Fact.REFERENCED),
        (Reachability(asked=2, known=2, referenced=1, own=1), "kmalloc", Fact.REFERENCED),
        (Reachability(asked=1, known=1, own=1), "kmalloc", Fact.OWN_REFERENCE),
        (Reachability(asked=1), "kmalloc", Fact.NOT_TRACKED),
        (Reachability(asked=1), "vmalloc", Fact.NOT_TRACKED),
    ],
)
def test_kmemleak(said, allocator, fact):
    traced = replace(site([3, 3], allocator=allocator), reachability=said)
    assert kmemleak.judge(traced, session(traced)).fact is fact


@pytest.mark.parametrize(
    ("object_bytes", "fact"), [(8192, Fact.REFERENCED), (8193, Fact.REFERENCED_LARGE)]
)
def test_a_pointer_into_more_than_slabs_hold_says_less(object_bytes, fact):
    traced = site([3, 3], object_bytes=object_bytes)
    traced = replace(traced, reachability=Reachability(asked=1, known=1, referenced=1))
    assert kmemleak.judge(traced, session(traced)).fact is fact


@pytest.mark.parametrize(
    ("said", "allocator"),
    [
        (None, "kmalloc"),
        (Reachability(), "kmalloc"),
        (Reachability(asked=1, known=1), "kmalloc"),  # it was told to ignore the object
        (Reachability(asked=1), "kmem_cache"),  # the cache may be one that it does not track
        (Reachability(asked=1), "vmap"),
    ],
)
def test_kmemleak_has_nothing_to_say(said, allocator):
    traced = replace(site([3, 3], allocator=allocator), reachability=said)
    assert kmemleak.judge(traced, session(traced)) is None


def test_kmemleak_names_some_of_them():
    traced = replace(site([3, 3]), reachability=Reachability(unreferenced=5))
    assert "5 of 6" in kmemleak.judge(traced, session(traced)).says
