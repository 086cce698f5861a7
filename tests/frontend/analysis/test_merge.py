from dataclasses import replace

import pytest

from kleak.analysis.judge import judge
from kleak.analysis.merge import Judged, merge, site_id, site_keys
from kleak.errors import UsageError
from kleak.model.report import Verdict
from kleak.model.session import Circumstances, Frame, Kernel, Source, Tally, Target
from tests.support.samples import KERNFS, LEAK, session, site, stack

DAY = 86400.0


def judged(name, *sites, release="6.12.1", build_id="aa", started_at=DAY, cycles=5, lost=None):
    target = Target("module", "leaky", "/lib/leaky.ko", build_id=build_id)
    made = session(*sites, cycles=cycles, target=target, lost=lost)
    made = replace(
        made,
        kernel=Kernel(release, "x86_64"),
        circumstances=Circumstances(started_at=started_at),
    )
    return Judged(name, made, judge(made))


def moved(frames, by):
    """The same functions as another compiler run lays them out."""
    return tuple(
        Frame(one.module, one.symbol, one.offset + by, Source("leaky.c", 12 + by)) for one in frames
    )


def test_one_session_is_its_own_report():
    one = judged("a", site([3] * 5))
    assert merge([one]) is one.report


def test_a_site_of_two_builds_is_one():
    old = judged("old", site([3] * 5), started_at=DAY)
    new = judged(
        "new",
        site([2] * 5, frames=moved(LEAK, 8)),
        release="6.1.0",
        build_id="bb",
        started_at=2 * DAY,
    )
    report = merge([new, old])
    (found,) = report.sites
    assert found.outstanding == Tally(25, 25 * 128)
    assert [one.session for one in found.sightings] == ["old", "new"]
    assert [one.outstanding.count for one in found.sightings] == [15, 10]
    assert found.evidence[-1].says == (
        "seen in 2 of 2 sessions since 1970-01-02, on 2 kernels: 6.1.0, 6.12.1"
    )
    assert [one.name for one in report.merged] == ["old", "new"]
    assert report.kernel.release == "6.1.0"  # of the newest
    assert report.cycles == 10


def test_weights_still_add_up_to_the_score():
    one, two = judged("a", site([3] * 5)), judged("b", site([3] * 5))
    (found,) = merge([one, two]).sites
    (alone,) = one.report.sites
    assert sum(item.weight for item in found.evidence) == sum(
        item.weight for item in alone.evidence
    )
    assert found.score == alone.score


def test_two_calls_in_one_function_stay_two_sites_across_builds():
    first = (LEAK[0], Frame("leaky", "make", 0x10), *LEAK[2:])
    second = (LEAK[0], Frame("leaky", "make", 0x90), *LEAK[2:])
    one = judged("a", site([3] * 5, frames=first), site([2] * 5, frames=second))
    two = judged(
        "b",
        site([2] * 5, frames=moved(second, 4)),
        site([3] * 5, frames=moved(first, 4)),
        release="6.1.0",
        build_id="bb",
    )
    report = merge([one, two])
    assert sorted(found.outstanding.count for found in report.sites) == [20, 30]


def test_in_one_build_offsets_tell_sites_apart_even_if_a_session_lacks_one():
    first = (LEAK[0], Frame("leaky", "make", 0x10), *LEAK[2:])
    second = (LEAK[0], Frame("leaky", "make", 0x90), *LEAK[2:])
    both = judged("a", site([3] * 5, frames=first), site([2] * 5, frames=second))
    only = judged("b", site([2] * 5, frames=second))
    report = merge([both, only])
    assert {found.frames[0].offset: found.outstanding.count for found in report.sites} == {
        0x10: 15,
        0x90: 20,
    }


def test_frames_beyond_the_target_do_not_matter():
    by_insmod = LEAK
    by_probe = (*LEAK[:3], *stack("driver_probe+1 <- bus_probe+2"))
    report = merge([judged("a", site([3] * 5)), judged("b", site([3] * 5, frames=by_probe))])
    assert len(report.sites) == 1
    assert by_insmod[3] != by_probe[3]


def test_what_the_kernel_allocates_below_the_target_does():
    other = (KERNFS[0], *stack("kernfs_iattrs+1"), *KERNFS[2:])
    report = merge(
        [judged("a", site([3] * 5, frames=KERNFS)), judged("b", site([3] * 5, frames=other))]
    )
    assert len(report.sites) == 2


def test_suffixes_of_the_compiler_do_not_matter():
    cold = (LEAK[0], Frame("leaky", "leak_it.constprop.0", 3), *LEAK[2:])
    report = merge(
        [judged("a", site([3] * 5)), judged("b", site([3] * 5, frames=cold), build_id="bb")]
    )
    assert len(report.sites) == 1


def test_a_site_keeps_its_id_whatever_else_is_there():
    lone = judged("a", site([3] * 5))
    many = judged("b", site([3] * 5), site([1] * 5, frames=KERNFS), build_id="bb")
    ((alone,),) = site_keys([lone])
    among = site_keys([many, lone])
    assert site_id(alone) == site_id(among[1][0])
    assert site_id(alone) in {site_id(key) for key in among[0]}
    assert len({site_id(key) for key in among[0]}) == 2


def test_the_surest_session_decides():
    sure = judged("a", site([3] * 5))
    unsure = judged("b", site([3]), cycles=1)
    (found,) = merge([unsure, sure]).sites
    assert found.verdict is Verdict.CONFIRMED


def test_losses_of_one_are_losses_of_all():
    report = merge([judged("a", site([3] * 5), lost={"x": 2}), judged("b", site([3] * 5))])
    assert report.trust.lost == {"x": 2}
    assert [one.complete for one in report.merged] == [False, True]


def test_a_clean_session_counts():
    report = merge([judged("a", site([3] * 5)), judged("clean")])
    assert "seen in 1 of 2 sessions since" in report.sites[0].evidence[-1].says


def test_sessions_of_different_targets_are_refused():
    other = session(site([3]), target=Target("module", "other"))
    with pytest.raises(UsageError, match="a is of module leaky, b of module other: only sessions"):
        merge([judged("a", site([3] * 5)), Judged("b", other, judge(other))])
