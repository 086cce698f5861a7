"""Names that stayed in procfs, debugfs, slab and among devices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kleak.analysis.judge import judge
from kleak.analysis.weights import Fact
from kleak.analysis.witnesses import registered_names
from kleak.model.report import Verdict
from kleak.model.session import Reachability, Target
from tests.support.paths import TESTS
from tests.support.samples import LEAK, session, site, stack, told

DATA = TESTS / "data"
PROC = stack("kmem_cache_alloc_noprof+1 <- __proc_create+1 <- proc_create_data+1 <- f+1 [leaky]")
DEBUGFS = stack(
    "kmem_cache_alloc_lru_noprof+1 <- __d_alloc+1 <- d_alloc+1 <- d_alloc_parallel+1 <- "
    "__lookup_slow+1 <- lookup_one_len+1 <- start_creating.part.0+1 <- debugfs_create_dir+1 <- "
    "f+1 [leaky]"
)
CACHE = stack(
    "kmem_cache_alloc_noprof+1 <- __kmem_cache_create_args+1 <- "
    "__kmem_cache_create_args.constprop.0+1 <- kmem_cache_create_usercopy+1 <- f+1 [leaky]"
)
DEVICE = stack("__kmalloc_cache_noprof+1 <- __root_device_register+1 <- f+1 [leaky]")
MANAGED_BY_ANOTHER = stack(
    "__kmalloc_node_track_caller_noprof+1 <- devm_kmalloc+1 <- probe+1 [other] <- f+1 [leaky]"
)
MANAGED_BY_NOBODY = stack("__kmalloc_node_track_caller_noprof+1 <- devm_kmalloc+1 <- probe+1")
MANAGED = stack("__kmalloc_node_track_caller_noprof+1 <- devm_kmalloc+1 <- f+1 [leaky]")
ATTRIBUTE = stack(
    "kmem_cache_alloc_noprof+1 <- __kernfs_new_node+1 <- sysfs_slab_add+1 <- "
    "kmem_cache_create_usercopy+1 <- f+1 [leaky]"
)


NAMES = "/proc/fs\n/proc/fs/ext4\n"


def names(*new: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Names as they were before, and with what is new."""
    return (
        ("registered names", NAMES),
        ("registered names", NAMES + "".join(f"{name}\n" for name in new)),
    )


@pytest.mark.parametrize(
    ("frames", "name"),
    [
        (PROC, "/proc/leaky"),
        (DEBUGFS, "/sys/kernel/debug/leaky"),
        (CACHE, "/sys/kernel/slab/leaky_objects"),
    ],
)
def test_names_that_stay_make_a_registry_guilty(frames, name):
    traced = site([1, 1, 1], frames=frames)
    plain = judge(session(traced)).sites[0]
    (found,) = judge(told(session(traced), *names(name, f"{name}2", f"{name}3"))).sites
    assert plain.verdict is Verdict.POSSIBLE
    assert found.verdict is Verdict.CONFIRMED
    assert any(name in item.says for item in found.evidence)


def test_fewer_names_than_objects_say_nothing():
    traced = site([1, 1, 1], frames=PROC)
    said = names("/proc/leaky", "/proc/leaky2")
    assert registered_names.judge(traced, told(session(traced), *said)) is None


def test_a_name_that_only_one_load_could_take_is_not_retained():
    traced = site([1, 0, 0], frames=PROC)
    assert judge(session(traced)).sites[0].verdict is Verdict.RETAINED
    found = judge(told(session(traced), *names("/proc/leaky"))).sites[0]
    assert found.verdict is Verdict.POSSIBLE


def test_a_device_that_stays():
    traced = site([1], frames=DEVICE)
    finding = registered_names.judge(traced, told(session(traced), *names("/sys/devices/leaky")))
    assert finding is not None
    assert finding.fact is Fact.NAME_STAYS


def test_the_device_explains_a_pointer_to_managed_memory():
    managed = replace(
        site([7, 7, 7], frames=MANAGED),
        reachability=Reachability(asked=1, known=1, referenced=1),
    )
    device = site([1, 1, 1], frames=DEVICE)
    said = names("/sys/devices/leaky", "/proc/leaky")

    def judged(*sites):
        found = judge(told(session(*sites), *said)).sites
        return next(one for one in found if one.outstanding.count == 21)

    explained = judged(managed, device)
    assert explained.verdict is Verdict.CONFIRMED
    told_of = [item.says for item in explained.evidence if item.witness == "registered names"]
    assert told_of[0].endswith("and /sys/devices/leaky, new since the start, is there still")
    # Somebody else's device, and memory that another's probe took.
    assert judged(managed).verdict < Verdict.CONFIRMED
    assert judged(replace(managed, frames=MANAGED_BY_ANOTHER), device).verdict < Verdict.CONFIRMED
    nobodys = replace(managed, frames=MANAGED_BY_NOBODY)
    assert registered_names.judge(nobodys, told(session(nobodys, device), *said)) is None


def test_a_registry_points_to_what_is_registered():
    """So kmemleak's pointer to it is expected, and speaks for nobody."""
    said = names("/proc/leaky", "/proc/leaky2", "/proc/leaky3")
    plain = site([1, 1, 1], frames=PROC)
    pointed_to = replace(plain, reachability=Reachability(asked=1, known=1, referenced=1))
    one, other = (judge(told(session(each), *said)).sites[0] for each in (plain, pointed_to))
    assert (one.verdict, one.score) == (other.verdict, other.score)
    assert other.verdict is Verdict.CONFIRMED
    assert any(item.witness == "registered and pointed to" for item in other.evidence)


def test_a_cache_that_stays_for_its_objects_is_not_itself_left_behind():
    text = (DATA / "kmsg" / "6.12--dev-kmsg.txt").read_text()
    said = (
        ("registered names", NAMES),
        ("registered names", f"{NAMES}/sys/kernel/slab/classic_objects\n"),
        ("kernel log", text),
    )
    traced = site([1, 1, 1], frames=CACHE)
    assert registered_names.judge(traced, told(session(traced), *said)) is None


@pytest.mark.parametrize(
    ("frames", "name"),
    [
        (PROC, "/sys/kernel/debug/leaky"),
        (ATTRIBUTE, "/sys/kernel/slab/leaky_objects"),
        (LEAK, "/proc/leaky"),
        (LEAK, "/sys/devices/leaky"),
    ],
)
def test_name_says_nothing_of_other_sites(frames, name):
    traced = site([1, 1, 1], frames=frames)
    said = (("registered names", NAMES), ("registered names", f"{NAMES}{name}\n"))
    assert registered_names.judge(traced, told(session(traced), *said)) is None


def test_name_of_what_is_still_loaded_is_no_witness():
    traced = site([1, 1], frames=PROC)
    said = (("registered names", NAMES), ("registered names", f"{NAMES}/proc/leaky\n"))
    loaded = session(traced, still_loaded=True)
    assert registered_names.judge(traced, told(loaded, *said)) is None
    kernel = session(traced, target=Target("symbols", "proc_*"))
    assert registered_names.judge(traced, told(kernel, *said)) is None
