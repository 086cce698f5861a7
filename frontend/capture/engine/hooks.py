"""What a hook is: events, the ways to hear of them, and what the kernel's types say of both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from kleak.errors import UnsupportedError
from kleak.parsers.btf import Btf
from kleak.symbols.kernel_table import TextRange


class Attachment(Enum):
    """How a program is attached. A raw tracepoint and a trampoline guard each program by itself;
    probes share one guard on each CPU with all other probes, and miss more. A program on a typed
    raw tracepoint may read what the event's arguments point to.
    """

    RAW_TRACEPOINT = "raw tracepoint"
    TYPED_TRACEPOINT = "typed raw tracepoint"
    FENTRY = "fentry"
    FEXIT = "fexit"
    KPROBE = "kprobe"
    KRETPROBE = "kretprobe"


TRACEPOINTS = frozenset({Attachment.RAW_TRACEPOINT, Attachment.TYPED_TRACEPOINT})
PROBES = frozenset({Attachment.KPROBE, Attachment.KRETPROBE})


@dataclass(frozen=True, slots=True)
class Hook:
    """One way to hear of an event: programs (C functions of ``bpf/``) on a kernel function or
    tracepoint. More than one program makes copies: what one misses, the next one sees.
    ``btf_id``: of fentry and fexit the number of the function's type, of a typed raw tracepoint
    that of the event's.
    """

    attachment: Attachment
    target: str
    programs: tuple[str, ...]
    btf_id: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the engine wants to hear of: the first of ``ways`` that works is used.

    ``without`` says what a result lacks where none works; None: nothing can be traced then.
    ``hides_call_sites``: what allocates below is called by a trampoline then, which its events
    give as the call site.
    """

    name: str
    ways: tuple[Hook, ...]
    without: str | None = None
    hides_call_sites: bool = False


@dataclass(slots=True)
class Plan:
    """Events to attach to, and the constants that their programs are compiled with.

    ``page_owners`` is code that takes pages to make other memory of them.
    """

    events: list[Event] = field(default_factory=list)
    constants: dict[str, int] = field(default_factory=dict)
    page_owners: tuple[TextRange, ...] = ()


def tracepoint(name: str, *programs: str) -> Hook:
    """Return the hook of programs on a raw tracepoint."""
    return Hook(Attachment.RAW_TRACEPOINT, name, programs)


def typed_tracepoint(btf: Btf, name: str, *programs: str) -> tuple[Hook, ...]:
    """Return the hook of programs that may read what a raw tracepoint's arguments point to.

    Nothing where the kernel has no type for the event. Such programs came with commit f1b9509c2fb0
    ("bpf: Replace prog_raw_tp+btf_id with prog_tracing"), v5.5.
    """
    number = btf.typedef_id(f"btf_trace_{name}")
    if number is None:
        return ()
    return (Hook(Attachment.TYPED_TRACEPOINT, name, programs, number),)


def arguments(
    btf: Btf, tracepoint: str, wanted: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, int]:
    """Return constants for the places of a tracepoint's arguments; none if there is no event."""
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


def offset(btf: Btf, struct: str, member: str) -> int:
    """Return where a member lies in its struct, in bytes. Raises UnsupportedError if nowhere."""
    found = btf.member_offset(struct, member)
    if found is None:
        raise UnsupportedError(
            f"this kernel's struct {struct} has no member {member}: "
            "please report the kernel's version"
        )
    return found


def traced_function(
    btf: Btf, attachment: Attachment, names: Iterable[str], *, copies: int = 1
) -> tuple[Hook, ...]:
    """Return the hook on the first of ``names`` that this kernel has, by fentry or fexit.

    A function may be renamed: allocation profiling appended _noprof (commit 7bd230a26648
    ("mm/slab: enable slab allocation tagging for kmalloc and friends"), v6.10).
    """
    kind = "kfunc" if attachment is Attachment.FENTRY else "kretfunc"
    for name in names:
        number = btf.function_id(name)
        if number is not None:
            return (Hook(attachment, name, (f"{kind}__{name}",) * copies, number),)
    return ()


def profiled(*names: str) -> tuple[str, ...]:
    """Return each name as it is and as it is with allocation profiling."""
    return tuple(form for name in names for form in (name, f"{name}_noprof"))
