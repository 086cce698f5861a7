"""A writer that is killed leaves every cycle that it had saved, and nothing torn."""

import os
import random
import signal
import time
from dataclasses import replace

from kleak.analysis.judge import judge
from kleak.model.session import Circumstances, Frame
from kleak.store.reader import read_session
from kleak.store.writer import SessionWriter
from tests.support.samples import session, site

KILLS = 100
CYCLES = 1000
SITES = 12


def captured(cycles: int):
    """What a capture has seen after so many cycles. Each site keeps more in each cycle."""
    sites = [
        site(
            [number + 1] * cycles,
            frames=(Frame("leaky", f"function_{number}", number),),
            sampled=min(30, cycles),
        )
        for number in range(SITES)
    ]
    about = Circumstances(planned_cycles=CYCLES, finished=False)
    return replace(session(*sites, cycles=cycles), circumstances=about)


def write_until_killed(path, told: int) -> None:
    with SessionWriter(path) as writer:
        for cycles in range(CYCLES):
            writer.save(captured(cycles))
            os.write(told, b"x")


def test_a_hundred_kills_at_random_points(tmp_path):
    chance = random.Random(20261123)
    torn = 0
    known: set[str] = set()
    for number in range(KILLS):
        path = tmp_path / f"{number}.kleak"
        tells, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write_until_killed(path, told)
            finally:
                os._exit(1)
        os.close(told)
        assert os.read(tells, 1) == b"x"  # it has begun
        time.sleep(chance.uniform(0, 0.08))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        saved = 0  # cycles 0 to saved: the first byte was of the save before any cycle
        while chunk := os.read(tells, 4096):
            saved += len(chunk)
        os.close(tells)
        others = {entry.name for entry in path.parent.iterdir()} - known
        known |= others
        torn += bool(others - {path.name})
        found = read_session(path)
        # One more than it told of, if it was killed between the save and the telling.
        assert len(found.cycles) in (saved, saved + 1)
        assert len(found.sites) == SITES
        for one in found.sites:
            expected = one.frames[0].offset + 1
            assert [tally.outstanding.count for tally in one.cycles] == (
                [expected] * len(found.cycles)
            )
            assert len(list(one.kept)) == min(30, len(found.cycles))
        report = judge(found)
        missing = len(found.cycles) + 1
        assert any(f"cycle {missing} is missing" in note for note in report.trust.notes)
        assert not report.trust.complete
    # A file that was to be put there. Without any the kills never hit a save.
    assert torn >= KILLS // 20
