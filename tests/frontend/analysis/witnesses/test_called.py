"""Whose an object is: by what BTF says of the functions that made it."""

from dataclasses import replace

from kleak.analysis.judge import judge
from kleak.analysis.weights import Fact
from kleak.analysis.witnesses import origin
from kleak.model.report import Verdict
from kleak.model.session import Answer
from kleak.store.reader import read_session
from tests.support.samples import session, site, stack
from tests.support.saved import FILES

SAID = """\
nla_strdup\tchar\tstruct nlattr\t-
widget_init\t-\tstruct widget\twidget_exit
widget_fill\t-\tstruct widget\t-
pool_make\tstruct pool\t-\t-
handle_open\t-\tstruct net,*struct handle\thandle_close
handle_inner\t-\tstruct net,*struct handle\t-
rhashtable_init\t-\tstruct rhashtable,struct rhashtable_params\trhashtable_destroy
thing_register\t-\tstruct thing\t-
cache_grow\t-\tstruct cache\t-
"""


# A cache is the kernel's, and so is its name in sysfs.
_NAME_OF_A_CACHE = (
    "kobject_set_name_vargs <- kobject_init_and_add <- sysfs_slab_add <- kmem_cache_create"
)

# Seen with null_blk, which leaks nothing: one of these was left by every one of three cycles.
_NAME_OF_A_QUEUE = (
    "kobject_set_name_vargs <- kobject_add <- blk_mq_register_hctx <- blk_mq_sysfs_register <- "
    "blk_register_queue <- device_add_disk"
)


def fact(frames, said=SAID):
    traced = site([1], frames=stack(f"__kmalloc_cache_noprof+1 <- {frames} <- f+1 [leaky]"))
    judged = session(traced)
    answers = (Answer("origins", 1, said),)
    judged = replace(judged, circumstances=replace(judged.circumstances, answers=answers))
    return origin.judge(traced, judged).fact


def test_what_a_function_hands_out_is_its_callers():
    for frames in (
        "nla_strdup",  # a pointer, and a name that makes
        "widget_init",  # filled in, and taken back by another
        "widget_fill <- widget_init",  # a helper is given the same object
        "split_off.part.0 <- widget_fill <- widget_init",  # one that BTF does not know
        "handle_inner <- handle_open",  # stored where the caller said
        "pool_make <- widget_fill <- widget_init",
        "bucket_table_alloc <- rhashtable_init_noprof",  # a table of its own
        "kvasprintf_const <- kobject_set_name_vargs <- kobject_add_varg <- kobject_init_and_add",
    ):
        assert fact(frames) is Fact.CONSTRUCTOR, frames


def test_what_the_kernel_keeps_is_its_own():
    for frames, expected in {
        "thing_register": Fact.DEEP,
        "pool_make": Fact.DEEP,  # nothing takes it back, and the name does not say that it makes
        "cache_grow <- widget_init": Fact.DEEP,  # a helper that is given something else
        "a <- b <- c <- d <- e <- g <- widget_init": Fact.DEEP,  # too far
        "bucket_table_alloc <- rhashtable_insert_slow": Fact.REGISTRY,
        "kernfs_new_node <- kobject_add_internal <- kobject_init_and_add": Fact.REGISTRY,
        "create_cache <- kmem_cache_create <- widget_init": Fact.REGISTRY,
        _NAME_OF_A_CACHE: Fact.REGISTRY,
        _NAME_OF_A_QUEUE: Fact.REGISTRY,
    }.items():
        assert fact(frames) is expected, frames


def test_names_decide_where_the_kernel_says_nothing():
    assert fact("some_alloc", "") is Fact.CONSTRUCTOR
    assert fact("widget_init", "") is Fact.DEEP


def test_of_a_captured_cache_that_was_left_behind_its_objects_alone_are_accused():
    judged = judge(read_session(FILES / "witnesses" / "6.12--classic-objects.kleak"))
    guilty = [one.frames[0].symbol for one in judged.sites if one.verdict >= Verdict.LIKELY]
    assert guilty == ["classic_leak_object", "classic_leak_kmalloc"]
    left = [one for one in judged.sites if one.frames[0].symbol == "kobject_set_name_vargs"]
    assert [one.per_cycle is not None and one.per_cycle[0].count for one in left] == [1]
