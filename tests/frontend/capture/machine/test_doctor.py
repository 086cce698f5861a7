"""The doctor's findings, from files as kernels of several kinds show them, and their two forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kleak.capture.engine.hooks import Attachment, Event, Hook, Plan
from kleak.capture.engine.records import Limits
from kleak.capture.machine import doctor as engine
from kleak.capture.machine.probes import examine_machine
from kleak.model.doctor import MODULE, RUN, Check, State, obstacles
from kleak.model.session import Kernel
from kleak.render.doctor_table import render_json, render_table

ALL_CAPABILITIES = "000001ffffffffff"
KERNEL = Kernel("6.12.0", "x86_64")


class Machine:
    """A root directory that looks like a machine on which everything works."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/self/status", f"Uid:\t0\t0\t0\t0\nCapEff:\t{ALL_CAPABILITIES}\n")
        self.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
        self.write("proc/modules", "")
        self.write("proc/sys/kernel/modules_disabled", "0\n")
        self.write("proc/sys/kernel/perf_event_max_stack", "127\n")
        self.write("proc/sys/kernel/kptr_restrict", "1\n")
        self.write("proc/vmallocinfo", "0x0-0x1\n")
        self.write(
            "proc/kallsyms",
            "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\n"
            "ffffffff81000100 T kmemleak_alloc\n"
            "ffffffff81000200 T __set_page_owner\n"
            "ffffffff81000300 T vmemmap_populate\n"
            "ffffffff81000400 D vmemmap_base\nffffffff81000500 D page_offset_base\n",
        )
        self.write(
            "proc/mounts",
            "debugfs /sys/kernel/debug debugfs rw 0 0\n"
            "tracefs /sys/kernel/tracing tracefs rw 0 0\n",
        )
        self.write("sys/kernel/debug/kmemleak", "")
        self.write("sys/kernel/debug/page_owner", "")
        self.write("proc/77/comm", "kmemleak\n")
        self.write("proc/allocinfo", "")
        self.write("proc/sys/vm/mem_profiling", "1\n")
        self.write("proc/kcore", "\x7fELF")

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def findings(self) -> dict[str, Check]:
        return {finding.name: finding for finding in examine_machine(self.root)}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_everything_is_there(machine: Machine) -> None:
    findings = machine.findings()
    assert {name for name, found in findings.items() if found.state is not State.YES} == set()
    assert not obstacles(findings.values(), MODULE)


@pytest.mark.parametrize(
    ("path", "text", "name", "state", "stops"),
    [
        ("proc/self/status", f"Uid:\t1000\t1000\t0\t0\nCapEff:\t{ALL_CAPABILITIES}\n",
         "root", State.NO, {MODULE, RUN}),
        ("proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t000000c800210000\n",
         "root", State.DEGRADED, set()),
        ("proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t000001fffffeffff\n",
         "module loading", State.NO, {MODULE}),
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n",
         "lockdown", State.DEGRADED, set()),
        ("sys/kernel/security/lockdown", "none integrity [confidentiality]\n",
         "lockdown", State.NO, {MODULE, RUN}),
        ("proc/modules", None, "module loading", State.NO, {MODULE}),
        ("proc/sys/kernel/modules_disabled", "1\n", "module loading", State.NO, {MODULE}),
        ("sys/module/module/parameters/sig_enforce", "Y\n",
         "module loading", State.DEGRADED, set()),
        ("proc/sys/kernel/perf_event_max_stack", "32\n", "stack depth", State.DEGRADED, set()),
        ("proc/sys/kernel/perf_event_max_stack", None, "stack depth", State.NO, {MODULE, RUN}),
        ("proc/kallsyms", None, "kallsyms", State.NO, {MODULE, RUN}),
        ("proc/kallsyms", "0000000000000000 T _text\n", "kallsyms", State.NO, {MODULE, RUN}),
        ("proc/sys/kernel/kptr_restrict", "0\n", "kptr_restrict", State.YES, set()),
        ("proc/vmallocinfo", None, "vmallocinfo", State.NO, set()),
        ("proc/mounts", "", "debugfs", State.NO, set()),
        ("proc/mounts", "", "tracefs", State.NO, set()),
        ("proc/mounts", "", "kmemleak", State.NO, set()),
        ("proc/kallsyms", "ffffffff81000000 T _text\n", "kmemleak", State.NO, set()),
        ("sys/kernel/debug/kmemleak", None, "kmemleak", State.NO, set()),
        ("proc/77/comm", "kswapd0\n", "kmemleak", State.DEGRADED, set()),
        ("sys/kernel/debug/page_owner", None, "page_owner", State.NO, set()),
        ("proc/kallsyms", "ffffffff81000000 T _text\nffffffff81000400 D vmemmap_base\n",
         "page_owner", State.NO, set()),
        ("proc/allocinfo", None, "allocation profiling", State.NO, set()),
        ("proc/sys/vm/mem_profiling", "0\n", "allocation profiling", State.DEGRADED, set()),
        ("proc/kcore", None, "/proc/kcore", State.NO, set()),
    ],
)  # fmt: skip
def test_what_one_file_changes(
    machine: Machine, path: str, text: str | None, name: str, state: State, stops: set[str]
) -> None:
    if text is None:
        machine.remove(path)
    else:
        machine.write(path, text)
    findings = machine.findings()
    assert findings[name].state is state
    assert findings[name].effect
    stopped = {
        command
        for command in (MODULE, RUN)
        if findings[name] in obstacles(findings.values(), command)
    }
    assert stopped == stops


def test_kptr_restrict_on_a_read_only_proc(machine: Machine) -> None:
    machine.write("proc/sys/kernel/kptr_restrict", "0\n")
    machine.write("proc/mounts", "proc /proc/sys proc ro,nosuid 0 0\n")
    assert machine.findings()["kptr_restrict"].state is State.DEGRADED


def test_hidden_symbols_are_no_obstacle_where_kleak_may_show_them(machine: Machine) -> None:
    machine.write("proc/kallsyms", "0000000000000000 T _text\n")
    machine.write("proc/sys/kernel/kptr_restrict", "2\n")
    assert machine.findings()["kallsyms"].state is State.YES


REQUIRED = Event("kfree", (Hook(Attachment.RAW_TRACEPOINT, "kfree", ("a",)),))
OPTIONAL = Event(
    "kvfree_call_rcu",
    (
        Hook(Attachment.FENTRY, "kvfree_call_rcu", ("b",)),
        Hook(Attachment.KPROBE, "kvfree_call_rcu", ("c",)),
    ),
    without="kfree_rcu is not seen",
)
FENTRY = "kvfree_call_rcu by fentry of kvfree_call_rcu"
KPROBE = "kvfree_call_rcu by kprobe of kvfree_call_rcu"


@pytest.mark.parametrize(
    ("event", "worked", "state", "found"),
    [
        (REQUIRED, {"kfree by raw tracepoint of kfree"}, State.YES, "raw tracepoint"),
        (REQUIRED, set(), State.NO, "refused"),
        (OPTIONAL, {FENTRY, KPROBE}, State.YES, "fentry"),
        (OPTIONAL, {KPROBE}, State.DEGRADED, "kprobe"),
        (OPTIONAL, set(), State.NO, "refused"),
        (Event("x", (), "no x"), set(), State.NO, "this kernel has nothing to attach to"),
    ],
)
def test_an_event_takes_the_first_way_that_works(
    event: Event, worked: set[str], state: State, found: str
) -> None:
    finding = engine._examine_event(event, frozenset(worked))
    assert (finding.state, finding.found) == (state, found)
    stops = bool(obstacles([finding], RUN))
    assert stops == (state is State.NO and event.without is None)


def test_program_types_say_how_many_were_taken() -> None:
    plan = Plan([REQUIRED, OPTIONAL])
    worked = frozenset({"kfree by raw tracepoint of kfree", KPROBE})
    states = {found.name: found.state for found in engine._program_types(plan, worked)}
    assert states == {
        "raw tracepoint programs": State.YES,
        "fentry programs": State.NO,
        "kprobe programs": State.YES,
    }


@pytest.mark.parametrize("taken", [False, True])
def test_nothing_is_lost_where_typed_programs_are_refused(taken: bool) -> None:
    """A plain one stands behind each: the kernel is none the worse for it."""
    ways = [
        Hook(way, "kmem_cache_alloc", ("a",))
        for way in (Attachment.TYPED_TRACEPOINT, Attachment.RAW_TRACEPOINT)
    ]
    names = [f"kmem_cache_alloc by {way.attachment.value} of kmem_cache_alloc" for way in ways]
    plan = Plan([Event("kmem_cache_alloc", tuple(ways))])
    worked = frozenset(names if taken else names[1:])
    found = {one.name: one.state for one in engine._program_types(plan, worked)}
    typed = {"typed raw tracepoint programs": State.YES} if taken else {}
    assert found == {"raw tracepoint programs": State.YES, **typed}


def test_memory_of_maps_is_by_the_options_that_bound_it() -> None:
    limits = Limits()
    found = engine._examine_maps(
        {
            "outstanding": 140 * limits.outstanding,
            "ledger_filter": 30 * limits.outstanding,
            "stacks": 900 * limits.stacks,
            "totals": 100 * limits.stacks,
            "others": 512,
        }
    ).found
    assert "170 B for each of 65536 outstanding allocations (--max-outstanding)" in found
    assert "1000 B for each of 16384 stacks (--max-stacks)" in found
    assert found.startswith("26.3 MB")


FINDINGS = (
    Check("privilege", "root", State.YES, "root", mend="none is needed"),
    Check("modules", "module loading", State.NO, "no modules", "stops", "kleak vm", (MODULE,)),
    Check("privilege", "lockdown", State.DEGRADED, "integrity " * 20, "signed only", "reboot"),
)


def test_table_fits_its_width_and_says_what_mends() -> None:
    text = render_table(KERNEL, FINDINGS, width=80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "mend: kleak vm" in text
    assert "none is needed" not in text  # what works needs no mending
    assert lines.count("privilege") == 1
    assert lines[-2:] == ["kleak module cannot run here: module loading", "kleak run can run here"]
    assert "\x1b" not in text


def test_colors_change_nothing_but_color() -> None:
    colored = render_table(KERNEL, FINDINGS, color=True)
    assert "\x1b[31mno" in colored
    for code in ("31", "32", "33"):
        colored = colored.replace(f"\x1b[{code}m", "")
    assert colored.replace("\x1b[0m", "") == render_table(KERNEL, FINDINGS)


def test_json_has_every_finding_in_order() -> None:
    document = json.loads(render_json(KERNEL, FINDINGS))
    assert document["schema"] == "kleak.model.doctor/1"
    assert document["can_run"] == {"module": False, "run": True}
    assert [row["name"] for row in document["findings"]] == [f.name for f in FINDINGS]
    assert document["findings"][1]["mend"] == "kleak vm"
