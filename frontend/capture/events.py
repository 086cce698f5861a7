"""What the engine hooks, and how this kernel lets it.

Argument positions and member offsets come from the kernel's BTF and go to the C programs as
constants, so nothing here or there depends on a kernel version: an event is there or it is not.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from kleak.errors import UnsupportedError
from kleak.parsers.btf import Btf
from kleak.parsers.errors import ParseError

VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")


class Attachment(Enum):
    """How a program is attached. A raw tracepoint and a trampoline guard each program by itself;
    probes share one guard on each CPU with all other probes, and miss more.
    """

    RAW_TRACEPOINT = "raw tracepoint"
    FENTRY = "fentry"
    FEXIT = "fexit"
    KPROBE = "kprobe"
    KRETPROBE = "kretprobe"


@dataclass(frozen=True, slots=True)
class Hook:
    """One way to hear of an event: programs (C functions of ``bpf/``) on a kernel function or
    tracepoint. More than one program makes copies: what one misses, the next one sees.
    """

    attachment: Attachment
    target: str
    programs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the engine wants to hear of: the first of ``ways`` that works is used.

    ``without`` says what a result lacks where none works; None: nothing can be traced then.
    """

    name: str
    ways: tuple[Hook, ...]
    without: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Events to attach to, and the constants that their programs are compiled with."""

    events: tuple[Event, ...]
    constants: dict[str, int]
    notes: tuple[str, ...] = ()


def _tracepoint(name: str, *programs: str) -> Hook:
    return Hook(Attachment.RAW_TRACEPOINT, name, programs)


# Tracepoint -> arguments that its programs use.
_ARGUMENTS = {
    "kmalloc": ("call_site", "ptr", "bytes_req", "bytes_alloc"),
    "kmalloc_node": ("call_site", "ptr", "bytes_req", "bytes_alloc"),
    "kfree": ("call_site", "ptr"),
    "kmem_cache_free": ("call_site", "ptr"),
    "alloc_vmap_area": ("addr", "size", "failed"),
    "free_vmap_area_noflush": ("va_start",),
    "module_load": ("mod",),
    "module_free": ("mod",),
}
# Slab cache events tell sizes, or the cache that knows them, or (v6.0) both.
_CACHE_ARGUMENTS = {
    "kmem_cache_alloc": ("call_site", "ptr"),
    "kmem_cache_alloc_node": ("call_site", "ptr", "bytes_req", "bytes_alloc"),
}
_CACHE_SIZES = ("bytes_req", "bytes_alloc")

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


def make_plan(btf: Btf, *, modules: bool) -> Plan:
    """Decide what to hook on the kernel that ``btf`` describes.

    ``modules``: the scope has modules, whose loads must be seen.

    Raises UnsupportedError where the kernel lacks something without which nothing can be traced.
    """
    constants: dict[str, int] = {}
    for tracepoint, wanted in _ARGUMENTS.items():
        constants.update(_arguments(btf, tracepoint, wanted))
    for tracepoint, wanted in _CACHE_ARGUMENTS.items():
        constants.update(_arguments(btf, tracepoint, wanted, optional=(*_CACHE_SIZES, "s")))
    if "ARG_KMEM_CACHE_ALLOC_BYTES_ALLOC" not in constants:
        constants["OFF_KMEM_CACHE_SIZE"] = _offset(btf, "kmem_cache", "size")
        constants["OFF_KMEM_CACHE_OBJECT_SIZE"] = _offset(btf, "kmem_cache", "object_size")
    constants.update(_probe_words(btf))
    events = [*_slab_events(constants), _rcu_event(btf)]
    events += _vmalloc_events(btf, constants)
    if modules:
        constants.update(_module_offsets(btf))
        events += [
            Event("module_load", (_tracepoint("module_load", "on_module_load"),)),
            Event("module_free", (_tracepoint("module_free", "on_module_free"),)),
        ]
    constants.update(_stack_size(btf))
    return Plan(tuple(events), constants)


def _arguments(
    btf: Btf, tracepoint: str, wanted: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, int]:
    """Constants for the positions of a tracepoint's arguments; none if there is no such event."""
    # The kernel defines __traceiter_EVENT with the names of TP_PROTO, behind one of its own.
    names = btf.function_parameters(f"__traceiter_{tracepoint}")
    if names is None:
        return {}
    positions = {name: index for index, name in enumerate(names[1:])}
    missing = [name for name in wanted if name not in positions]
    if missing:
        raise UnsupportedError(
            f"this kernel's tracepoint {tracepoint} has no argument {missing[0]}: "
            "please report the kernel's version"
        )
    return {
        f"ARG_{tracepoint}_{name}".upper(): positions[name]
        for name in (*wanted, *optional)
        if name in positions
    }


def _offset(btf: Btf, struct: str, member: str) -> int:
    offset = btf.member_offset(struct, member)
    if offset is None:
        raise UnsupportedError(
            f"this kernel's struct {struct} has no member {member}: "
            "please report the kernel's version"
        )
    return offset


def _slab_events(constants: dict[str, int]) -> list[Event]:
    events = [
        Event("kfree", (_tracepoint("kfree", "on_kfree_1", "on_kfree_2"),)),
        Event(
            "kmem_cache_free",
            (_tracepoint("kmem_cache_free", "on_kmem_cache_free_1", "on_kmem_cache_free_2"),),
        ),
    ]
    for name in ("kmalloc", "kmem_cache_alloc"):
        events.append(Event(name, (_tracepoint(name, f"on_{name}"),)))
        # Up to v6.0 an allocation with a NUMA node has an event of its own.
        if f"ARG_{name}_node_ptr".upper() in constants:
            events.append(Event(f"{name}_node", (_tracepoint(f"{name}_node", f"on_{name}_node"),)))
    return events


def _rcu_event(btf: Btf) -> Event:
    ways = []
    if btf.has_function("kvfree_call_rcu"):
        traced = "kfunc__vmlinux__kvfree_call_rcu"
        ways = [
            Hook(Attachment.FENTRY, "kvfree_call_rcu", (traced, traced)),
            Hook(Attachment.KPROBE, "kvfree_call_rcu", ("probe_kvfree_call_rcu",)),
        ]
    return Event(
        "kvfree_call_rcu",
        tuple(ways),
        without="memory given to kfree_rcu() has no free event here and may look outstanding",
    )


def _vmalloc_events(btf: Btf, constants: dict[str, int]) -> list[Event]:
    without = "vmalloc, vmap and ioremap cannot be traced on this kernel"
    if "ARG_ALLOC_VMAP_AREA_ADDR" in constants:
        return [
            Event("alloc_vmap_area", (_tracepoint("alloc_vmap_area", "on_alloc_vmap_area"),)),
            Event(
                "free_vmap_area_noflush",
                (
                    _tracepoint(
                        "free_vmap_area_noflush", "on_free_vmap_area_1", "on_free_vmap_area_2"
                    ),
                ),
            ),
        ]
    constants["OFF_VMAP_AREA_VA_START"] = _offset(btf, "vmap_area", "va_start")
    constants["OFF_VMAP_AREA_VA_END"] = _offset(btf, "vmap_area", "va_end")
    parameters = btf.function_parameters("alloc_vmap_area")
    constants["PARAMETERS_ALLOC_VMAP_AREA"] = len(parameters or ())
    freed = "kfunc__vmlinux__free_vmap_area_noflush"
    return [
        Event(
            "alloc_vmap_area",
            (
                Hook(Attachment.FEXIT, "alloc_vmap_area", ("kretfunc__vmlinux__alloc_vmap_area",)),
                Hook(Attachment.KRETPROBE, "alloc_vmap_area", ("probe_return_alloc_vmap_area",)),
            ),
            without,
        ),
        Event(
            "free_vmap_area_noflush",
            (
                Hook(Attachment.FENTRY, "free_vmap_area_noflush", (freed, freed)),
                Hook(
                    Attachment.KPROBE, "free_vmap_area_noflush", ("probe_free_vmap_area_noflush",)
                ),
            ),
            without,
        ),
    ]


def _module_offsets(btf: Btf) -> dict[str, int]:
    """Where struct module keeps its text and init text: base addresses and 32-bit sizes."""
    constants = {"OFF_MODULE_NAME": _offset(btf, "module", "name")}
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
                _offset(btf, "module_memory", "base"),
                _offset(btf, "module_memory", "size"),
            )
        else:
            at = _offset(btf, "module", layout)
            base = _offset(btf, "module_layout", "base")
            size = _offset(btf, "module_layout", "text_size")
        constants[f"OFF_MODULE_{region}_BASE"] = at + base
        constants[f"OFF_MODULE_{region}_SIZE"] = at + size
    return constants


def _probe_words(btf: Btf) -> dict[str, int]:
    """Which words of struct pt_regs hold the first two parameters and a result."""
    machine = platform.machine()
    if machine == "x86_64":
        words = [_offset(btf, "pt_regs", register) // _WORD for register in ("di", "si", "ax")]
    elif machine == "aarch64":
        words = [0, 1, 0]  # regs[] comes first in user_pt_regs
    else:
        raise UnsupportedError(f"kleak does not know the registers of {machine}")
    return dict(
        zip(
            ("WORD_PT_REGS_PARAMETER_1", "WORD_PT_REGS_PARAMETER_2", "WORD_PT_REGS_RESULT"),
            words,
            strict=True,
        )
    )


def _stack_size(btf: Btf) -> dict[str, int]:
    """Constants for bpf/prefilter.h; none where it may not be used.

    It looks for return addresses among the words of the stack, so they must lie there as they
    are: on arm64 they may be signed.
    """
    if platform.machine() != "x86_64":
        return {}
    return {
        "OFF_TASK_STRUCT_STACK": _offset(btf, "task_struct", "stack"),
        "THREAD_SIZE_BYTES": thread_size_bytes(),
    }


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
