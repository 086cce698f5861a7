"""The self-test: allocations of each kind, caused by kleak itself, against what the ledger has.

What attaches may yet be called by nobody, or with other arguments than it was: only a count tells.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path

from kleak.capture.engine.bpf_source import read_source
from kleak.capture.engine.cache import keep, read_kept
from kleak.capture.engine.records import LedgerEntry
from kleak.capture.engine.tracer import Tracer
from kleak.capture.selftest.causes import CAUSES, NOT_TESTED, Cause
from kleak.errors import UnsupportedError
from kleak.model.session import NOT_SEEN, SEEN, UNTESTED
from kleak.symbols.kernel_table import KernelTable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_POLL_S = 0.002
# Events that are no allocation's, and what is no event.
_OTHERS = frozenset(
    {"module_load", "module_free", "sched_process_fork", "sched_process_exit", "kernel headers"}
)
_FULL = ("ledger_full", "stacks_full", "totals_full")
_Held = frozenset[tuple[int, int]]


class SelfTest:
    """Measures a tracer that is attached and has nothing in scope; once a boot."""

    def __init__(self, table: KernelTable, *, remembers: bool = True) -> None:
        """``table`` names the functions on stacks. ``remembers``: an earlier answer will do."""
        self._table = table
        self._remembers = remembers

    def __call__(self, tracer: Tracer) -> dict[str, str]:
        """Return for each kind "seen", or "not seen: " or "not tested: " and why."""
        name = _name(tracer)
        kept = read_kept(name) if self._remembers else None
        if kept is not None:
            return dict(json.loads(kept))
        try:
            with tracer.twin() as twin:
                found = self._measure(twin)
        except UnsupportedError as error:  # of memory, say: what attached is believed
            return {cause.kind: f"{UNTESTED}: {error}" for cause in CAUSES}
        for kind, events in NOT_TESTED.items():
            if any(event in tracer.means for event in events):
                found[kind] = f"{UNTESTED}: user space cannot cause it"
        if self._remembers:
            keep(name, json.dumps(found).encode())
        return found

    def _measure(self, tracer: Tracer) -> dict[str, str]:
        found: dict[str, str] = {}
        held: dict[Cause, _Held] = {}
        with ExitStack() as prepared:
            causes = []
            for make in CAUSES:
                try:
                    cause = make()
                except OSError as error:
                    found[make.kind] = f"{UNTESTED}: {error.strerror}"
                    continue
                prepared.callback(cause.close)
                causes.append(cause)
            own = tracer.count_everything()
            for cause in list(causes):
                try:
                    cause.hold()
                except OSError as error:
                    found[cause.kind] = f"{UNTESTED}: {error.strerror}"
                    causes.remove(cause)
            entries = [entry for entry in tracer.outstanding() if entry.tgid == own]
            counted = tracer.counters().counted
            if any(counted[full] for full in _FULL):
                return {cause.kind: f"{UNTESTED}: too much else went on" for cause in CAUSES}
            for cause in causes:
                found[cause.kind], held[cause] = self._look(tracer, cause, entries)
            tracer.hear_frees_only()
            for cause in causes:
                try:
                    cause.release()
                except OSError as error:
                    found[cause.kind], held[cause] = f"{UNTESTED}: {error.strerror}", frozenset()
            left = _wait_until_gone(tracer, held)
        for cause, number in left.items():
            if number and found[cause.kind] == SEEN:
                found[cause.kind] = f"{NOT_SEEN}: {number} of {cause.number} frees"
        return found

    def _look(
        self, tracer: Tracer, cause: Cause, entries: Sequence[LedgerEntry]
    ) -> tuple[str, _Held]:
        groups: defaultdict[int, list[LedgerEntry]] = defaultdict(list)
        for entry in entries:
            if entry.family in cause.families:
                groups[tracer.call_site(entry.stack) or entry.stack].append(entry)
        matching = [group for group in groups.values() if len(group) == cause.number]
        if not matching:
            return f"{NOT_SEEN}: no {cause.number} allocations on one stack", frozenset()
        for group in matching:
            if self._tells_who(tracer, group):
                return SEEN, frozenset((entry.address, entry.time_ns) for entry in group)
        return f"{NOT_SEEN}: stacks without the caller", frozenset()

    def _tells_who(self, tracer: Tracer, group: Sequence[LedgerEntry]) -> bool:
        """Whether stacks reach the system call that all this came from."""
        walked = {entry.stack for entry in group if not tracer.is_call_site(entry.stack)}
        return all(
            any(
                "syscall" in (self._table.resolve(address - 1).symbol or "").lower()
                for address in tracer.stack(stack)
            )
            for stack in walked
        )


def _wait_until_gone(tracer: Tracer, held: dict[Cause, _Held]) -> dict[Cause, int]:
    """Return how many objects of each cause are in the ledger when all are gone, or time is up."""
    begin = time.monotonic()
    left: dict[Cause, int] = {}
    while waiting := [cause for cause in held if left.get(cause, 1)]:
        elapsed_s = time.monotonic() - begin
        now = {(entry.address, entry.time_ns) for entry in tracer.outstanding()}
        for cause in waiting:
            if cause not in left or elapsed_s < cause.patience_s:
                left[cause] = len(held[cause] & now)
        if all(elapsed_s >= cause.patience_s for cause in waiting):
            break
        time.sleep(_POLL_S)
    return left


def _name(tracer: Tracer) -> str:
    here = resources.files("kleak.capture.selftest")
    own = b"".join(here.joinpath(name).read_bytes() for name in ("causes.py", "measure.py"))
    ways = {event: how for event, how in sorted(tracer.means.items()) if event not in _OTHERS}
    depends_on = f"{_BOOT_ID.read_text()} {os.uname().release} {ways} {read_source()}"
    depends_on += f" {tracer.walk_every > 1} "
    return f"{hashlib.sha256(depends_on.encode() + own).hexdigest()}.selftest"
