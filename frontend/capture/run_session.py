"""Bracket a command: what it makes kernel functions allocate, and what stays after it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kleak.capture.events import make_plan, read_btf
from kleak.capture.headers import find_headers
from kleak.capture.kernel_state import read_kernel_table
from kleak.capture.machine import require_root
from kleak.capture.recording import read_session
from kleak.capture.records import Limits, SymbolScope
from kleak.capture.settle import BETWEEN_CYCLES, patience_at_the_end, settle
from kleak.capture.tracer import Tracer
from kleak.errors import KleakError, StoppedError, TargetError, UsageError
from kleak.model import Cycle, Session, Target
from kleak.progress import Progress
from kleak.symbols.kernel_table import KernelTable, TextRange
from kleak.symbols.symboliser import Symboliser


@dataclass(frozen=True, slots=True)
class CommandRun:
    """What to run, how often, and which kernel functions count: globs of their names."""

    command: tuple[str, ...]
    scope: tuple[str, ...]
    repeat: int
    headers: str | None
    limits: Limits


def find_scope(table: KernelTable, globs: Sequence[str]) -> SymbolScope:
    """Return the code of the kernel functions that match. ``*`` is all of the kernel's text.

    Raises UsageError for a glob that matches nothing.
    """
    if "*" in globs:
        return SymbolScope((table.text,), everything=True)
    ranges: list[TextRange] = []
    for glob in globs:
        found = table.ranges_of_glob(glob)
        if not found:
            raise UsageError(f"no function of this kernel matches {glob}")
        ranges.extend(found)
    return SymbolScope(tuple(sorted(ranges, key=lambda text: text.start)))


def trace_command(run: CommandRun, progress: Progress) -> tuple[Session, KleakError | None]:
    """Run the command ``repeat`` times, each a cycle, and return what was seen.

    A command that fails, or Ctrl-C, ends the cycles; what was seen so far is returned with the
    reason. Raises UnsupportedError where this machine cannot trace, UsageError for the scope.
    """
    require_root()
    progress.say("reading the kernel's types and symbols")
    table = read_kernel_table()
    scope = find_scope(table, run.scope)
    plan = make_plan(read_btf(), table, modules=False)
    tracer = Tracer(plan, find_headers(run.headers), symbols=scope, limits=run.limits)
    progress.say("compiling and attaching")
    cycles: list[Cycle] = []
    failure: KleakError | None = None
    with tracer:
        patience = patience_at_the_end(sees_kfree_rcu=tracer.sees_kfree_rcu)
        try:
            for index in range(1, run.repeat + 1):
                started = time.monotonic_ns()
                progress.done()
                try:
                    _run_once(tracer, run.command, index)
                finally:
                    tracer.count_allocations(False)
                    cycles.append(Cycle(index, started, time.monotonic_ns()))
                if index < run.repeat:
                    settle(tracer.outstanding_count, BETWEEN_CYCLES, progress, f"run {index}")
        except TargetError as error:
            failure = error
        except KeyboardInterrupt:
            failure, patience = StoppedError("interrupted"), BETWEEN_CYCLES
        try:
            settle(tracer.outstanding_count, patience, progress, "end")
        except KeyboardInterrupt:
            failure = failure or StoppedError("interrupted while waiting for late frees")
        progress.say("reading the result")
        notes = [] if failure is None else [f"ended in cycle {len(cycles)}: {failure}"]
        session = read_session(
            tracer,
            Target("symbols", ",".join(run.scope)),
            cycles,
            Symboliser(table).resolve,
            notes=notes,
        )
    return session, failure


def _run_once(tracer: Tracer, command: Sequence[str], cycle: int) -> None:
    """Run the command with allocations counting. Its input, output and signals are its own."""
    tracer.count_allocations(True, cycle=cycle)
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        raise UsageError(f"{command[0]}: {error.strerror}") from error
    try:
        status = process.wait()
    except KeyboardInterrupt:
        # The terminal sent it to the command too; kill -TERM of kleak alone did not.
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if status < 0:
        raise TargetError(f"{command[0]} died of {signal.Signals(-status).name}")
    if status != 0:
        raise TargetError(f"{command[0]} failed with exit status {status}")
