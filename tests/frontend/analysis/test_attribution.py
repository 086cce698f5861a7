"""Several modules: whose a leak is, by whose loads it grows, what a loaded one may hold."""

from __future__ import annotations

from dataclasses import replace

from kleak.analysis.attribution import attribute, count_cycles, modules_on
from kleak.analysis.judge import judge
from kleak.model.session import Allocation, Cycle, Target
from kleak.store.reader import read_session
from kleak.store.writer import SessionWriter
from tests.support.samples import LEAK, session, site, stack

BOTH = Target("module", "lib,user")
LIB = stack("kmalloc <- take [lib] <- lib_init [lib] <- do_one_initcall")
USER = stack("kmalloc <- user_init [user] <- do_one_initcall")
SHARED = stack("kmalloc <- take [lib] <- user_init [user] <- do_one_initcall")


def loads(*names, still=()):
    """A cycle for each name, in order; places in ``still`` are not over."""
    return tuple(
        Cycle(i, i * 10, None if i in still else i * 10 + 5, None, name)
        for i, name in enumerate(names, start=1)
    )


def of(*names, sites=(), still=(), target=BOTH):
    return replace(
        session(*sites, cycles=len(names), target=target), cycles=loads(*names, still=still)
    )


def counts(traced):
    return [tally.outstanding.count for tally in traced.cycles]


def test_the_innermost_module_is_charged():
    assert modules_on(SHARED, BOTH) == ("lib", "user")
    assert modules_on(USER, BOTH) == ("user",)
    assert modules_on(SHARED, Target("module", "user")) == ("user",)
    assert modules_on(stack("kmalloc <- do_one_initcall"), BOTH) == ()


def test_cycles_become_the_loads_of_the_charged_module():
    several = of("lib", "user", "user", "lib", "user")
    found = attribute(site([5, 3, 3, 5, 3], frames=LIB), several)
    assert counts(found.site) == [11, 8]
    assert [cycle.index for cycle in found.session.cycles] == [1, 2]
    assert [cycle.loaded_at_ns for cycle in found.session.cycles] == [10, 40]
    assert counts(attribute(site([0, 3, 3, 0, 3], frames=USER), several).site) == [3, 3, 3]


def test_allocations_are_renumbered_with_their_cycles():
    traced = replace(
        site([5, 0, 5], frames=LIB),
        kept=(Allocation(1, 8, 8, 1, 1, 1, "x"), Allocation(2, 8, 8, 2, 3, 1, "x")),
    )
    found = attribute(traced, of("lib", "user", "lib"))
    assert [one.cycle for one in found.site.kept] == [1, 2]


def test_what_a_loaded_module_holds_is_left_out():
    traced = replace(
        site([5, 5, 8], frames=LIB),
        kept=(Allocation(1, 8, 8, 1, 1, 1, "x"), Allocation(2, 8, 8, 2, 3, 1, "x")),
    )
    found = attribute(traced, of("lib", "lib", "lib", still={3}))
    assert counts(found.site) == [5, 5]
    assert counts(found.held) == [8]
    assert found.site.requested_bytes is None  # it is known of all together only
    assert [one.address for one in found.site.kept] == [1]


def test_what_came_after_the_cycles_were_counted_is_not_looked_at(tmp_path):
    """Files were written with allocations of cycle 3 in a session of two."""
    traced = replace(site([5, 5]), kept=tuple(Allocation(i, 8, 8, i, i, 1, "x") for i in (1, 2, 3)))
    path = tmp_path / "old.kleak"
    with SessionWriter(path) as writer:
        writer.save(session(traced))
    saved = read_session(path)
    assert [one.cycle for one in saved.sites[0].kept] == [1, 2, 3]
    assert judge(saved).sites[0].outstanding.count == 10
    assert [one.cycle for one in attribute(saved.sites[0], saved).site.kept] == [1, 2]


def test_a_module_that_stays_does_not_hide_the_leaks_of_another():
    several = of("lib", "user", "user", still={1})
    assert counts(attribute(site([0, 7, 7], frames=USER), several).site) == [7, 7]
    # All that it ever did is in a load that is not over: the survival witness says so.
    only = attribute(site([5, 0, 0], frames=LIB), several)
    assert counts(only.site) == [5]
    assert only.held is None


def test_a_module_that_was_there_before_is_not_charged():
    assert counts(attribute(site([3, 3], frames=SHARED), of("user", "user")).site) == [3, 3]


def test_one_module_is_left_as_it_is():
    traced = site([3, 3, 3])
    whole = session(traced)
    found = attribute(traced, whole)
    assert (found.site, found.session, found.held) == (traced, whole, None)


def test_the_last_cycle_of_one_module_that_is_not_over_is_left_out():
    report = judge(session(site([3, 3, 3, 20], frames=LEAK), still_loaded=True))
    assert [tally.count for tally in report.sites[0].per_cycle] == [3, 3, 3]
    assert report.cycles == 3
    assert (
        "left out: what modules held that were still loaded, 20 objects from 1 stack"
        in report.trust.notes
    )


def test_the_report_of_several_counts_loads_and_names_the_shared():
    sites = (
        site([5, 3, 3, 5, 3, 3, 5, 3, 3], frames=LIB),
        site([0, 3, 3, 0, 3, 3, 0, 3, 3], frames=SHARED),
        site([0, 7, 7, 0, 7, 7, 0, 7, 7], frames=USER),
    )
    whole = of(*["lib", "user", "user"] * 3, sites=sites)
    assert count_cycles(whole) == {"lib": 3, "user": 6}
    report = judge(whole)
    assert report.cycles == 6
    assert "a module's cycles are its own loads: lib 3, user 6" in report.trust.notes
    says = {
        found.frames: item.says
        for found in report.sites
        for item in found.evidence
        if item.witness == "origin"
    }
    assert says[SHARED[1:]] == "allocated by a call in lib itself; shared: called by user"
    assert says[USER[1:]] == "allocated by a call in user itself"
    growth = {
        found.frames: item.says
        for found in report.sites
        for item in found.evidence
        if item.witness == "growth"
    }
    assert growth[SHARED[1:]] == "+6 in every one of 3 cycles"
    assert growth[USER[1:]] == "+7 in every one of 6 cycles"
