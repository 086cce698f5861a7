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
from kleak.model.doctor import BOTH, MODULE, RUN, Check, Subject
from kleak.parsers.btf import Btf
from kleak.parsers.kallsyms import HiddenAddressesError
from kleak.symbols.kernel_table import KernelTable
from kleak.units import size

_NOTHING = "nothing can be traced"
_BCC = Subject("engine", "bcc", _NOTHING, BOTH)
_HEADERS = Subject("engine", "kernel headers", "bcc cannot compile", BOTH)
_BTF = Subject("engine", "BTF", _NOTHING, BOTH)
_EVENTS = Subject("engine", "events", _NOTHING, BOTH)
_PROGRAMS = Subject("engine", "programs", _NOTHING, BOTH)
_MAPS = Subject("engine", "maps")
_NO_MODULE = "(none)"
_ONLY_FOR = {
    "module_load": MODULE,
    "module_free": MODULE,
    "sched_process_fork": RUN,
    "sched_process_exit": RUN,
}


def examine(headers: str | None = None) -> tuple[Check, ...]:
    """Look at everything. ``headers`` names a header tree, as for a capture."""
    return (*examine_machine(), *_examine_engine(headers))


def _examine_engine(headers: str | None) -> Iterator[Check]:
    yield _examine_bcc()
    tree, check = _examine_headers(headers)
    yield check
    btf, check = _examine_btf()
    yield check
    if btf is None:
        return
    if KPTR_RESTRICT.read_text().strip() == "2":
        yield _left_out()
        return
    try:
        table = KernelTable(Path("/proc/kallsyms").read_bytes(), loaded_modules().values())
        plan = _plan(btf, table)
    except (UnsupportedError, HiddenAddressesError, OSError) as error:
        yield _EVENTS.no(str(error))
        return
    if tree is None:
        yield _not_tried("the programs cannot be compiled without kernel headers")
        return
    yield from _try_programs(plan, tree)


def _examine_bcc() -> Check:
    if importlib.util.find_spec("bcc") is not None:
        return _BCC.yes("Python can import it")
    return _BCC.no(
        "Python cannot import it",
        "apt-get install python3-bpfcc, and run kleak with the distribution's Python",
    )


def _examine_headers(headers: str | None) -> tuple[HeaderTree | None, Check]:
    try:
        tree = find_headers(headers)
    except UnsupportedError as error:
        mend = "apt-get install linux-headers-amd64, or --kernel-headers DIR"
        return None, _HEADERS.no(str(error), mend)
    running = os.uname().release in tree.description or tree.proc_kheaders
    found = tree.description if running else f"{tree.description} (of another kernel: they will do)"
    return tree, _HEADERS.yes(found)


def _examine_btf() -> tuple[Btf | None, Check]:
    try:
        return read_btf(), _BTF.yes("/sys/kernel/btf/vmlinux")
    except UnsupportedError as error:
        return None, _BTF.no(str(error), "a kernel with CONFIG_DEBUG_INFO_BTF")


def _plan(btf: Btf, table: KernelTable) -> Plan:
    try:
        return make_plan(btf, table, modules=True, processes=True)
    except UnsupportedError:
        # No modules on this kernel; module loading has a line of its own.
        return make_plan(btf, table, modules=False, processes=True)


def _try_programs(plan: Plan, tree: HeaderTree) -> Iterator[Check]:
    # Every way of every event is an event of its own here, and none ends the attempt.
    ways = [
        Event(_way(event, hook), (hook,), without="refused")
        for event in plan.events
        for hook in event.ways
    ]
    # The programs of references are there for modules in scope only: one that nobody loads.
    scope = (_NO_MODULE,) if any(event.name == "module_get" for event in plan.events) else ()
    try:
        with Tracer(replace(plan, events=ways), tree, modules=scope) as tracer:
            worked = frozenset(tracer.attachments)
            map_bytes = tracer.map_bytes
    except UnsupportedError as error:
        yield _not_tried(str(error))
        return
    yield _examine_maps(map_bytes)
    yield from _program_types(plan, worked)
    for event in plan.events:
        yield _examine_event(event, worked)


def _examine_maps(map_bytes: Mapping[str, int]) -> Check:
    """``map_bytes`` are those of maps with the default limits."""
    limits = Limits()
    an_object = (map_bytes["outstanding"] + map_bytes["ledger_filter"]) // limits.outstanding
    a_stack = (map_bytes["stacks"] + map_bytes["totals"]) // limits.stacks
    return _MAPS.yes(
        f"{size(sum(map_bytes.values()))} of memory during a capture, all of it from the start: "
        f"{size(an_object)} for each of {limits.outstanding} outstanding allocations "
        f"(--max-outstanding), {size(a_stack)} for each of {limits.stacks} stacks (--max-stacks)",
    )


def _way(event: Event, hook: Hook) -> str:
    return f"{event.name} by {hook.attachment.value} of {hook.target}"


def _left_out() -> Check:
    return _PROGRAMS.degraded(
        "not tried: kptr_restrict = 2 hides what they are made with",
        "sysctl -w kernel.kptr_restrict=1",
        effect="a capture sets it to 1 for a moment, but this command changes nothing",
    )


def _not_tried(why: str) -> Check:
    return _PROGRAMS.no(why)


def _program_types(plan: Plan, worked: frozenset[str]) -> Iterator[Check]:
    for attachment in Attachment:
        wanted = [
            _way(event, hook)
            for event in plan.events
            for hook in event.ways
            if hook.attachment is attachment
        ]
        required = attachment is Attachment.RAW_TRACEPOINT
        subject = Subject(
            "programs",
            f"{attachment.value} programs",
            _NOTHING if required else "see the events below",
            BOTH if required else (),
        )
        if not wanted:
            continue
        if accepted := worked.intersection(wanted):
            yield subject.yes(f"{len(accepted)} of {len(wanted)} wanted were attached")
        elif attachment is not Attachment.TYPED_TRACEPOINT:  # a plain one stands behind each
            yield subject.no(f"refused: none of {len(wanted)} wanted")


def _examine_event(event: Event, worked: frozenset[str]) -> Check:
    needed_by: tuple[str, ...] = ()
    if event.name in _ONLY_FOR:
        needed_by = (_ONLY_FOR[event.name],)
    elif event.without is None:
        needed_by = BOTH
    subject = Subject("events", event.name, event.without or _NOTHING, needed_by)
    used = next((hook for hook in event.ways if _way(event, hook) in worked), None)
    if used is None:
        mend = "" if needed_by else "a kernel that takes fentry programs or kprobes"
        return subject.no("refused" if event.ways else "this kernel has nothing to attach to", mend)
    if used.attachment in PROBES:
        return subject.degraded(
            used.attachment.value,
            "a kernel that takes fentry programs (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS)",
            effect="probes share one guard with all others on a CPU, and miss more events",
        )
    return subject.yes(used.attachment.value)
