"""What this machine can do, found by looking and by trying: nothing on it is changed.

The programs of the engine are compiled, attached and detached again with nothing in scope: the
only honest answer to what this kernel accepts. Settings that kleak changes for a moment in a
capture (kptr_restrict) are only looked at.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import HeaderTree, find_headers
from kleak.capture.engine.hooks import PROBES, Attachment, Event, Hook, Plan
from kleak.capture.engine.records import Limits
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import loaded_modules
from kleak.capture.machine.probes import examine_machine
from kleak.capture.machine.settings import KPTR_RESTRICT
from kleak.errors import UnsupportedError
from kleak.model.doctor import BOTH, MODULE, RUN, Finding, State
from kleak.parsers.btf import Btf
from kleak.parsers.kallsyms import HiddenAddressesError
from kleak.symbols.kernel_table import KernelTable
from kleak.units import size

_ONLY_FOR = {
    "module_load": MODULE,
    "module_free": MODULE,
    "sched_process_fork": RUN,
    "sched_process_exit": RUN,
}


def examine(headers: str | None = None) -> tuple[Finding, ...]:
    """Look at everything. ``headers`` names a header tree, as for a capture."""
    return (*examine_machine(), *_examine_engine(headers))


def _examine_engine(headers: str | None) -> Iterator[Finding]:
    yield _examine_bcc()
    tree, finding = _examine_headers(headers)
    yield finding
    btf, finding = _examine_btf()
    yield finding
    if btf is None:
        return
    if KPTR_RESTRICT.read_text().strip() == "2":
        yield _left_out()
        return
    try:
        table = KernelTable(Path("/proc/kallsyms").read_bytes(), loaded_modules().values())
        plan = _plan(btf, table)
    except (UnsupportedError, HiddenAddressesError, OSError) as error:
        yield Finding(
            "engine", "events", State.NO, str(error), "nothing can be traced", needed_by=BOTH
        )
        return
    if tree is None:
        yield _not_tried("the programs cannot be compiled without kernel headers")
        return
    yield from _try_programs(plan, tree)


def _examine_bcc() -> Finding:
    if importlib.util.find_spec("bcc") is not None:
        return Finding("engine", "bcc", State.YES, "Python can import it", needed_by=BOTH)
    return Finding(
        "engine",
        "bcc",
        State.NO,
        "Python cannot import it",
        "nothing can be traced",
        "apt-get install python3-bpfcc, and run kleak with the distribution's Python",
        BOTH,
    )


def _examine_headers(headers: str | None) -> tuple[HeaderTree | None, Finding]:
    name = "kernel headers"
    try:
        tree = find_headers(headers)
    except UnsupportedError as error:
        mend = "apt-get install linux-headers-amd64, or --kernel-headers DIR"
        return None, Finding("engine", name, State.NO, str(error), "bcc cannot compile", mend, BOTH)
    running = os.uname().release in tree.description or tree.proc_kheaders
    found = tree.description if running else f"{tree.description} (of another kernel: they will do)"
    return tree, Finding("engine", name, State.YES, found, needed_by=BOTH)


def _examine_btf() -> tuple[Btf | None, Finding]:
    try:
        return read_btf(), Finding(
            "engine", "BTF", State.YES, "/sys/kernel/btf/vmlinux", needed_by=BOTH
        )
    except UnsupportedError as error:
        mend = "a kernel with CONFIG_DEBUG_INFO_BTF"
        return None, Finding(
            "engine", "BTF", State.NO, str(error), "nothing can be traced", mend, BOTH
        )


def _plan(btf: Btf, table: KernelTable) -> Plan:
    try:
        return make_plan(btf, table, modules=True, processes=True)
    except UnsupportedError:
        # No modules on this kernel; module loading has a line of its own.
        return make_plan(btf, table, modules=False, processes=True)


def _try_programs(plan: Plan, tree: HeaderTree) -> Iterator[Finding]:
    # Every way of every event is an event of its own here, and none ends the attempt.
    ways = [
        Event(_way(event, hook), (hook,), without="refused")
        for event in plan.events
        for hook in event.ways
    ]
    try:
        with Tracer(replace(plan, events=ways), tree) as tracer:
            worked = frozenset(tracer.attachments)
            map_bytes = tracer.map_bytes
    except UnsupportedError as error:
        yield _not_tried(str(error))
        return
    yield _examine_maps(map_bytes)
    yield from _program_types(plan, worked)
    for event in plan.events:
        yield _examine_event(event, worked)


def _examine_maps(map_bytes: Mapping[str, int]) -> Finding:
    """``map_bytes`` are those of maps with the default limits."""
    limits = Limits()
    an_object = (map_bytes["outstanding"] + map_bytes["ledger_filter"]) // limits.outstanding
    a_stack = (map_bytes["stacks"] + map_bytes["totals"]) // limits.stacks
    return Finding(
        "engine",
        "maps",
        State.YES,
        f"{size(sum(map_bytes.values()))} of memory during a capture, all of it from the start: "
        f"{size(an_object)} for each of {limits.outstanding} outstanding allocations "
        f"(--max-outstanding), {size(a_stack)} for each of {limits.stacks} stacks (--max-stacks)",
    )


def _way(event: Event, hook: Hook) -> str:
    return f"{event.name} by {hook.attachment.value} of {hook.target}"


def _left_out() -> Finding:
    return Finding(
        "engine",
        "programs",
        State.DEGRADED,
        "not tried: kptr_restrict = 2 hides what they are made with",
        "a capture sets it to 1 for a moment, but this command changes nothing",
        "sysctl -w kernel.kptr_restrict=1",
    )


def _not_tried(why: str) -> Finding:
    return Finding("engine", "programs", State.NO, why, "nothing can be traced", needed_by=BOTH)


def _program_types(plan: Plan, worked: frozenset[str]) -> Iterator[Finding]:
    for attachment in Attachment:
        wanted = [
            _way(event, hook)
            for event in plan.events
            for hook in event.ways
            if hook.attachment is attachment
        ]
        name = f"{attachment.value} programs"
        if not wanted:
            continue
        if accepted := worked.intersection(wanted):
            yield Finding(
                "programs",
                name,
                State.YES,
                f"{len(accepted)} of {len(wanted)} wanted were attached",
            )
        elif attachment is not Attachment.TYPED_TRACEPOINT:  # a plain one stands behind each
            required = attachment is Attachment.RAW_TRACEPOINT
            yield Finding(
                "programs",
                name,
                State.NO,
                f"refused: none of {len(wanted)} wanted",
                "nothing can be traced" if required else "see the events below",
                needed_by=BOTH if required else (),
            )


def _examine_event(event: Event, worked: frozenset[str]) -> Finding:
    needed_by: tuple[str, ...] = ()
    if event.name in _ONLY_FOR:
        needed_by = (_ONLY_FOR[event.name],)
    elif event.without is None:
        needed_by = BOTH
    used = next((hook for hook in event.ways if _way(event, hook) in worked), None)
    if used is None:
        means = event.without or "nothing can be traced"
        mend = "" if needed_by else "a kernel that takes fentry programs or kprobes"
        found = "refused" if event.ways else "this kernel has nothing to attach to"
        return Finding("events", event.name, State.NO, found, means, mend, needed_by)
    if used.attachment in PROBES:
        return Finding(
            "events",
            event.name,
            State.DEGRADED,
            used.attachment.value,
            "probes share one guard with all others on a CPU, and miss more events",
            "a kernel that takes fentry programs (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS)",
            needed_by,
        )
    return Finding("events", event.name, State.YES, used.attachment.value, needed_by=needed_by)
