"""What the engine hooks on this kernel, as its own types decide.

Argument positions and member offsets come from the kernel's BTF and go to the C programs as
constants, so nothing here or there depends on a kernel version: an event is there or it is not.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from pathlib import Path

from kleak.capture.engine.allocators import ALLOCATORS
from kleak.capture.engine.bpf_maps import possible_cpus
from kleak.capture.engine.btf_cache import RememberedBtf
from kleak.capture.engine.hooks import Attachment, Event, Plan, arguments, offset, tracepoint
from kleak.capture.engine.page_events import add_pages
from kleak.capture.engine.sampling import CLOCK_MONOTONIC_COARSE
from kleak.capture.machine.kernel_state import read_kernel
from kleak.errors import UnsupportedError
from kleak.parsers.btf import Btf
from kleak.parsers.errors import ParseError
from kleak.symbols.kernel_table import KernelTable

VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")

_PROCESS_EVENTS = {"sched_process_fork": ("child",), "sched_process_exit": ("p",)}
_PROCESS_MEMBERS = (
    ("task_struct", "tgid"),
    ("task_struct", "signal"),
    ("signal_struct", "live"),
    ("pid", "numbers"),
    ("upid", "nr"),
)
_TRACER_MEMBERS = (("task_struct", "thread_pid"), ("pid", "level"))
_WORD = 8


def read_btf() -> Btf:
    """Read the running kernel's type information.

    Raises UnsupportedError where the kernel has none (CONFIG_DEBUG_INFO_BTF), or a damaged one.
    """
    try:
        return Btf(VMLINUX_BTF.read_bytes())
    except OSError as error:
        raise UnsupportedError(
            f"{VMLINUX_BTF}: {error.strerror}; kleak needs a kernel with CONFIG_DEBUG_INFO_BTF"
        ) from error
    except ParseError as error:
        raise UnsupportedError(f"{VMLINUX_BTF}: {error}") from error


def plan_here(table: KernelTable, *, modules: bool, processes: bool = False) -> Plan:
    """Decide what to hook on the running kernel; see make_plan().

    What an earlier run was told of its types is not asked again.
    """
    size = VMLINUX_BTF.stat().st_size if VMLINUX_BTF.exists() else 0
    btf = RememberedBtf(read_kernel(), size, read_btf)
    plan = make_plan(btf, table, modules=modules, processes=processes)
    btf.remember()
    return plan


def make_plan(btf: Btf, table: KernelTable, *, modules: bool, processes: bool = False) -> Plan:
    """Decide what to hook on the kernel that ``btf`` and ``table`` describe.

    ``modules``: the scope has modules, whose loads must be seen. ``processes``: the process tree
    of a command is to be followed.

    Raises UnsupportedError where the kernel lacks something without which nothing can be traced.
    """
    plan = Plan()
    plan.constants.update(_probe_words(btf))
    plan.constants.update(_offsets(btf, _TRACER_MEMBERS))
    plan.constants["POSSIBLE_CPUS"] = possible_cpus()
    for add in ALLOCATORS:
        add(btf, plan)
    add_pages(btf, table, plan)
    plan.constants.update(_results(btf, plan))
    if modules:
        for event in ("module_load", "module_free"):
            plan.constants.update(arguments(btf, event, ("mod",)))
            plan.events.append(Event(event, (tracepoint(event, f"on_{event}"),)))
        plan.constants.update(_module_offsets(btf))
    if processes:
        for event, wanted in _PROCESS_EVENTS.items():
            plan.constants.update(arguments(btf, event, wanted))
            plan.events.append(Event(event, (tracepoint(event, f"on_{event}"),)))
        plan.constants.update(_offsets(btf, _PROCESS_MEMBERS))
        plan.constants["SIZE_UPID"] = btf.struct_size("upid") or 0
    plan.constants.update(_stack_size(btf))
    if btf.enumerator("BPF_FUNC_jiffies64") is not None:  # since v5.6
        plan.constants["TICK_NS"] = round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)
    return plan


def _offsets(btf: Btf, members: Iterable[tuple[str, str]]) -> dict[str, int]:
    return {
        f"OFF_{struct}_{member}".upper(): offset(btf, struct, member) for struct, member in members
    }


def _module_offsets(btf: Btf) -> dict[str, int]:
    """Where struct module keeps its text and init text: base addresses and 32-bit sizes."""
    constants = {"OFF_MODULE_NAME": offset(btf, "module", "name")}
    for event in ("module_load", "module_free"):
        if btf.function_parameters(f"__traceiter_{event}") is None:
            raise UnsupportedError(
                "this kernel cannot load modules (CONFIG_MODULES); "
                "kleak vm runs a command on another kernel"
            )
    # An array of regions since commit ac3b43283923 ("module: replace module_layout with
    # module_memory", v6.4); two layouts before.
    regions = btf.member("module", "mem")
    for region, index_name, layout in (
        ("TEXT", "MOD_TEXT", "core_layout"),
        ("INIT", "MOD_INIT_TEXT", "init_layout"),
    ):
        if regions is not None and regions.element_size is not None:
            index = btf.enumerator(index_name)
            if index is None:
                raise UnsupportedError(f"this kernel's BTF has no {index_name}")
            at = regions.offset + index * regions.element_size
            base, size = (
                offset(btf, "module_memory", "base"),
                offset(btf, "module_memory", "size"),
            )
        else:
            at = offset(btf, "module", layout)
            base = offset(btf, "module_layout", "base")
            size = offset(btf, "module_layout", "text_size")
        constants[f"OFF_MODULE_{region}_BASE"] = at + base
        constants[f"OFF_MODULE_{region}_SIZE"] = at + size
    return constants


def _probe_words(btf: Btf) -> dict[str, int]:
    """Which words of struct pt_regs hold the first three parameters and a result."""
    machine = platform.machine()
    if machine == "x86_64":
        words = [offset(btf, "pt_regs", register) // _WORD for register in ("di", "si", "dx", "ax")]
    elif machine == "aarch64":
        words = [0, 1, 2, 0]  # regs[] comes first in user_pt_regs
    else:
        raise UnsupportedError(f"kleak does not know the registers of {machine}")
    return dict(
        zip(
            (
                "WORD_PT_REGS_PARAMETER_1",
                "WORD_PT_REGS_PARAMETER_2",
                "WORD_PT_REGS_PARAMETER_3",
                "WORD_PT_REGS_RESULT",
            ),
            words,
            strict=True,
        )
    )


def _results(btf: Btf, plan: Plan) -> dict[str, int]:
    """Where fexit finds the results of the functions that it hooks, and how wide they are."""
    # The helpers came with commit f92c1e183604 ("bpf: Add get_func_[arg|ret|arg_cnt] helpers"),
    # v5.17.
    constants = {"HAS_GET_FUNC_ARG": int(btf.enumerator("BPF_FUNC_get_func_arg") is not None)}
    for hook in (hook for event in plan.events for hook in event.ways):
        if hook.attachment is not Attachment.FEXIT:
            continue
        parameters = btf.function_parameters(hook.target)
        result = btf.function_result_bytes(hook.target)
        if parameters is not None and result is not None:
            constants[f"PARAMETERS_{hook.target}"] = len(parameters)
            constants[f"RESULT_BYTES_{hook.target}"] = result
    return constants


def _stack_size(btf: Btf) -> dict[str, int]:
    """Constants for bpf/prefilter.h; none where it may not be used.

    It looks for return addresses among the words of the stack, so they must lie there as they
    are: on arm64 they may be signed.
    """
    if platform.machine() != "x86_64":
        return {}
    registers = btf.struct_size("pt_regs")
    if registers is None:
        return {}
    constants = {
        "OFF_TASK_STRUCT_STACK": offset(btf, "task_struct", "stack"),
        "THREAD_SIZE_BYTES": thread_size_bytes(),
        "SIZE_PT_REGS": registers,
    }
    if btf.enumerator("BPF_FUNC_get_current_task_btf") is not None:
        constants["HAS_CURRENT_TASK_BTF"] = 1
    return constants


def thread_size_bytes() -> int:
    """Return the size of a kernel stack, from what all stacks together take.

    No symbol or type tells it: KernelStack of /proc/meminfo is the sum over all threads, the
    last figure of /proc/loadavg before the process id is their number. Threads come and go
    between the two reads, so the nearest power of two is taken, and no less than four pages,
    the smallest that x86-64 has.
    """
    meminfo = Path("/proc/meminfo").read_text()
    kernel_stack_kb = next(
        int(line.split()[1]) for line in meminfo.splitlines() if line.startswith("KernelStack:")
    )
    threads = int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
    size = 4 * 4096
    while size * 1.5 < kernel_stack_kb * 1024 / threads:
        size *= 2
    return size
