"""States of witnesses: as text and back, old files included, and the one list of names."""

from kleak.model.witnesses import WITNESSES, Outcome, WitnessState
from kleak.snapshots.judge import analyze
from kleak.snapshots.snapshot import Snapshot
from kleak.store.reader import read_session
from tests.support.saved import saved_files


def test_a_state_is_read_as_it_was_written():
    for outcome in Outcome:
        for why in ("", "no such file: x", "refused: twice"):
            state = WitnessState(outcome, why)
            assert WitnessState.parse(str(state)) == state
            assert state.used == (outcome is Outcome.USED)


def test_what_older_files_say_is_why_it_is_absent():
    for text in ("/proc/vmallocinfo: Permission denied", "", "usedness", "not saved"):
        assert WitnessState.parse(text) == WitnessState(Outcome.ABSENT, text)


def test_every_witness_of_saved_sessions_and_of_snapshots_is_declared():
    for path in saved_files():
        assert read_session(path).trust.witnesses.keys() <= WITNESSES.keys(), path
    shots = [Snapshot("1"), Snapshot("2")]
    assert analyze(shots, "x").report.trust.witnesses.keys() <= WITNESSES.keys()
