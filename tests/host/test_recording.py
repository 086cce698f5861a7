"""What a report says of frees that come in while the maps are read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.read_session import Observed, read_session
from kleak.capture.scope import NamedScope
from kleak.capture.witnesses.observer import Observer
from kleak.model.session import Cycle, Frame
from kleak.symbols.symboliser import Symboliser
from tests.support.build_modules import TOP

HELD = 331


def test_frees_while_reading_are_counted(tmp_path: Path) -> None:
    """The first stack is named when counters are read: then the holder of all objects is killed."""
    table, scope = read_kernel_table(), NamedScope(("do_signalfd4",))
    plan = make_plan(read_btf(), table, modules=False)
    killed = False

    class Killing(Symboliser):
        def resolve(self, address: int, epoch: int) -> Frame:
            nonlocal killed
            if not killed:
                killed = True
                keeper = int((tmp_path / "keeper").read_text())
                os.kill(keeper, 9)
                end = time.monotonic() + 10
                while tracer.outstanding_count() >= HELD and time.monotonic() < end:
                    time.sleep(0.01)
            return super().resolve(address, epoch)

    symbols = scope.find(table).symbols
    with (
        Observer(scope.names, 1) as observer,
        Tracer(plan, find_headers(), symbols=symbols) as tracer,
    ):
        tracer.count_allocations(True, cycle=1)
        load = TOP / "tests" / "host" / "signalfd_load.py"
        subprocess.run([sys.executable, load, "1", "0", str(HELD)], cwd=tmp_path, check=True)
        tracer.count_allocations(False)
        observed = Observed(scope.target, (Cycle(1, 0, None),), Killing(table), observer)
        session = read_session(tracer, observed, None)
    events = session.trust.observed
    assert events["allocations"] - events["frees"] >= HELD
    assert HELD <= events["frees_while_reading"] <= events["allocations"]
