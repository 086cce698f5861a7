"""Whose an object is: by what BTF says of the functions that made it."""

from dataclasses import replace

from kleak.analysis.weights import Fact
from kleak.analysis.witnesses import origin
from kleak.model.session import Answer
from tests.support.samples import session, site, stack

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
    }.items():
        assert fact(frames) is expected, frames


def test_names_decide_where_the_kernel_says_nothing():
    assert fact("some_alloc", "") is Fact.CONSTRUCTOR
    assert fact("widget_init", "") is Fact.DEEP
