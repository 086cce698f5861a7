"""What fails, in which order; what the kernel's log complains of; going on after a crash."""

from __future__ import annotations

from dataclasses import replace

from kleak.analysis.error_paths import conclude, leaves_more, of_cycles
from kleak.commands.vm_failures import fails_calls, resumed, with_session
from kleak.faults.complaints import complaints, headline
from kleak.faults.plan import Choice, plan
from kleak.faults.resume import join
from kleak.model.error_paths import Outcome
from kleak.model.faults import FailedCall, Failure, FaultRun, Injection
from kleak.model.frame import Frame
from kleak.model.session import Session
from tests.support.samples import session, site

CALLS = tuple(
    FailedCall(number, name, "NULL", Frame("m", caller, 9), made)
    for number, (name, caller, made) in enumerate(
        (("kmalloc", "a", 1), ("kstrdup", "b", 5), ("vmalloc", "c", 0), ("kfree", "b", 2)), start=1
    )
)


def pairs(choice: Choice) -> list[tuple[int, int]]:
    return [(one.call, one.nth) for one in plan(CALLS, choice)]


def test_first_second_and_last_of_each_call_the_first_of_all_before() -> None:
    assert pairs(Choice()) == [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2), (2, 5)]


def test_every_time_some_functions_and_a_limit() -> None:
    assert pairs(Choice(every=True)).count((2, 4)) == 1
    assert pairs(Choice(only=("kstr*",))) == [(2, 1), (2, 2), (2, 5)]
    assert pairs(Choice(only=("a",))) == [(1, 1)]
    assert pairs(Choice(limit=2)) == [(1, 1), (2, 1)]


def test_the_log_complains_of_bugs_and_not_of_failures() -> None:
    assert complaints("6,1,2,-;zram: Added device: zram0\n3,2,3,-;cannot allocate\n") == ("", False)
    log = (
        "6,1,2,-;before\n4,2,3,-;------------[ cut here ]------------\n"
        "4,3,4,-;WARNING: CPU: 0 PID: 9 at lib/x.c:3 f+0x1/0x2 [m]\n4,4,5,-;Call Trace:\n"
    )
    said, deadly = complaints(log)
    assert said.startswith("WARNING: CPU: 0")
    assert said.endswith("Call Trace:")
    assert not deadly
    said, deadly = complaints(log + "1,5,6,-;BUG: unable to handle page fault for address: 0\n")
    assert deadly
    assert headline(said).startswith("BUG: unable to handle")


def faulty(counts: list[int], *, crash: str | None = None) -> Session:
    """The first cycle has no failure, all others the same one."""
    made = session(site(counts, frames=site([1]).frames))
    injections = tuple(
        Injection(Failure(1, 1), cycle, "load", "no memory", True, "", None)
        for cycle in range(2, len(counts) + 1)
    )
    injections = (*injections[:-1], replace(injections[-1], crash=crash))
    return replace(made, faults=FaultRun(CALLS, (), injections, (Failure(2, 1),)))


def test_a_leak_of_each_time_is_told_and_one_that_is_always_there_is_not() -> None:
    report = conclude(faulty([0, 1, 1, 1, 1]))
    assert report.error_paths is not None
    (path,) = report.error_paths.paths
    assert path.outcome is Outcome.LEAKING
    assert path.times == 4
    assert [one.injected and one.injected.error_path for one in report.sites] == [1]
    always = conclude(faulty([1, 1, 1, 1, 1]))
    assert always.error_paths is not None
    assert always.error_paths.paths[0].outcome is Outcome.CLEAN


def test_a_late_free_is_no_leak() -> None:
    report = conclude(faulty([0, 1, 0, 0, 0]))
    assert report.error_paths is not None
    assert report.error_paths.paths[0].outcome is not Outcome.LEAKING


def test_what_a_killed_task_held_is_no_leak() -> None:
    report = conclude(faulty([0, 3], crash="Oops"))
    assert report.error_paths is not None
    assert report.error_paths.paths[0].outcome is Outcome.CRASHED
    assert not report.sites
    assert report.error_paths.is_found


def test_a_part_of_a_session_has_its_cycles_only() -> None:
    captured = faulty([0, 2, 3, 0, 0])
    part = of_cycles(captured, (2, 3))
    assert [cycle.index for cycle in part.cycles] == [1, 2]
    assert [tally.outstanding.count for tally in part.sites[0].cycles] == [2, 3]
    assert leaves_more(captured, (2,), (1,))
    assert not leaves_more(captured, (4,), (1,))


def test_two_captures_become_one_session() -> None:
    one, other = faulty([0, 1, 1], crash="Oops"), faulty([0, 1])
    both = join(one, other)
    assert [cycle.index for cycle in both.cycles] == [1, 2, 3, 4, 5]
    assert [tally.outstanding.count for tally in both.sites[0].cycles] == [0, 1, 1, 0, 1]
    assert both.faults is not None
    assert [found.cycle for found in both.faults.injections] == [2, 3, 5]
    assert not both.sites[0].kept


def test_the_next_guest_goes_on_with_the_session() -> None:
    command = ("module", "m.ko", "a=1", "--fail-calls", "--fail-limit", "3", "--fail-every")
    assert fails_calls(command)
    assert not fails_calls(("module", "m.ko"))
    given, path = with_session(command)
    assert given[1:3] == ("-o", str(path))
    assert with_session((*command, "-o", "s.kleak"))[1].name == "s.kleak"
    assert resumed(command, path) == (
        "module", "--resume", str(path), "--force", "m.ko", "a=1", "--fail-calls",
    )  # fmt: skip
