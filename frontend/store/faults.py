"""The calls that failed on purpose, from a session file."""

from __future__ import annotations

import sqlite3

from kleak.model.faults import FailedCall, Failure, FaultRun, Injection, NotTried
from kleak.model.frame import Frame, Source
from kleak.store.schema import unsigned


def read_faults(database: sqlite3.Connection, cycles: int) -> FaultRun | None:
    """Return them; None where no call could fail. ``cycles`` is how many the session has.

    Raises ValueError where rows do not fit one another.
    """
    run = database.execute
    calls = tuple(
        FailedCall(
            number,
            function,
            returns,
            Frame(module, symbol, unsigned(offset), None if file is None else Source(file, line)),
            made,
        )
        for number, function, returns, made, module, symbol, offset, file, line in run(
            "SELECT number, function, returns, made, module, symbol, offset, file, line "
            "FROM fault_calls JOIN frames ON frame = frames.id ORDER BY number"
        )
    )
    if not calls:
        return None
    injections = tuple(
        Injection(
            Failure(call, nth),
            # The last one of a capture that was killed has no cycle in the file.
            cycle if cycle is not None and cycle <= cycles else None,
            phase,
            said,
            None if reached is None else bool(reached),
            complaints,
            crash,
        )
        for call, nth, cycle, phase, said, reached, complaints, crash in run(
            "SELECT call, nth, cycle, phase, said, reached, complaints, crash "
            "FROM fault_injections ORDER BY position"
        )
    )
    left = tuple(
        Failure(call, nth)
        for call, nth in run("SELECT call, nth FROM fault_left ORDER BY position")
    )
    known = {call.number for call in calls}
    failures = [*left, *(one.failure for one in injections)]
    if any(one.call not in known for one in failures):
        raise ValueError("a failure of a call that is not there")
    if any(one.cycle is not None and one.cycle < 1 for one in injections):
        raise ValueError("a failure in no cycle")
    not_tried = run("SELECT function, calls, why FROM fault_not_tried ORDER BY function")
    return FaultRun(calls, tuple(NotTried(*row) for row in not_tried), injections, left)
