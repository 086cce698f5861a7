"""The kernel panics in the seventh cycle of a capture: the six before are in the session."""

from __future__ import annotations

from pathlib import Path

import pytest

from kleak.analysis.judge import judge
from kleak.commands import vm as command
from kleak.errors import TargetError, UsageError
from kleak.store.reader import read_session
from kleak.vm.kernels import find_kernel
from tests.support.build_modules import TOP, build_unit

KERNEL = "6.12"
PANIC_IN, PLANNED = 7, 9


def test_six_cycles_survive_a_panic_in_the_seventh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        kernel = find_kernel(KERNEL)
    except UsageError as error:
        pytest.skip(f"{error}: run 'make setup'")
    (module,) = build_unit(TOP / "examples" / "leaky", kernel)
    monkeypatch.chdir(tmp_path)
    exercise = (
        f"echo x >> cycles; [ $(wc -l < cycles) -lt {PANIC_IN} ] || echo c > /proc/sysrq-trigger"
    )
    words = ["module", str(module), "--cycles", str(PLANNED), "-o", "panic.kleak"]
    with pytest.raises(TargetError, match="panicked: sysrq triggered crash"):
        command.vm.main(
            ["--kernel", KERNEL, "--", *words, "--exercise", exercise], standalone_mode=False
        )
    assert Path("cycles").read_text() == PANIC_IN * "x\n"
    found = read_session(Path("panic.kleak"))
    assert len(found.cycles) == PANIC_IN - 1
    assert not found.circumstances.finished
    report = judge(found)
    assert not report.trust.complete
    assert report.trust.lost["cycles_cut_off"] == PLANNED - PANIC_IN + 1
    assert any(
        note.endswith("in cycle 7 of 9: cycles 1 to 6 are saved, cycle 7 is missing")
        for note in report.trust.notes
    )
    leaks = {str(site.frames[0].symbol).partition(".")[0]: site for site in report.sites}
    assert {"forget_rings", "lose_sessions", "forget_buffers", "leaky_init"} <= set(leaks)
    for name, number in (("forget_rings", 2), ("lose_sessions", 5), ("forget_buffers", 3)):
        kept = leaks[name].per_cycle
        assert kept is not None
        # kfree_rcu() of the last cycles may still have been on its way.
        assert [tally.count for tally in kept[:4]] == [number] * 4, name
    assert list(tmp_path.glob("*-journal")) == []
