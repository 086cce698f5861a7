"""The bpf() system call: maps, and programs from instructions. See include/uapi/linux/bpf.h.

bcc's library wraps it too, but wants a module that it compiled itself.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
from contextlib import suppress
from enum import IntEnum

_NUMBER = {"x86_64": 321, "aarch64": 280}
_LOAD_TRIES = 5


class Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    PROG_LOAD = 5
    PROG_TEST_RUN = 10
    RAW_TRACEPOINT_OPEN = 17
    MAP_LOOKUP_BATCH = 24


class ProgramType(IntEnum):
    """enum bpf_prog_type."""

    KPROBE = 2
    RAW_TRACEPOINT = 17
    TRACING = 26


class AttachType(IntEnum):
    """enum bpf_attach_type, of programs of type TRACING."""

    NONE = 0
    RAW_TRACEPOINT = 23
    FENTRY = 24
    FEXIT = 25


class MapCreation(ctypes.Structure):
    """The part of union bpf_attr that MAP_CREATE reads."""

    _fields_ = (
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("map_name", ctypes.c_char * 16),
    )


class Element(ctypes.Structure):
    """Of commands on one element of a map."""

    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("key", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
    )


class Batch(ctypes.Structure):
    """Of MAP_LOOKUP_BATCH."""

    _fields_ = (
        ("in_batch", ctypes.c_void_p),
        ("out_batch", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _ProgramLoad(ctypes.Structure):
    """Of PROG_LOAD."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_void_p),
        ("license", ctypes.c_void_p),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_void_p),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
        ("prog_btf_fd", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("func_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("line_info_cnt", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
    )


class _TestRun(ctypes.Structure):
    """Of PROG_TEST_RUN."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
    )


class _RawTracepointOpen(ctypes.Structure):
    """Of RAW_TRACEPOINT_OPEN."""

    _fields_ = (("name", ctypes.c_void_p), ("prog_fd", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: Command, attributes: ctypes.Structure) -> int:
    """Call bpf(2). Raises OSError with its errno."""
    number = _NUMBER.get(platform.machine())
    if number is None:
        raise OSError(f"the bpf system call of {platform.machine()} is not known")
    result = _libc.syscall(
        number, int(command), ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)


def allocate(command: Command, attributes: ctypes.Structure) -> int:
    """Call bpf(2) for what takes memory. Raises OSError.

    Before v5.11 it counts as locked memory, of which root's processes too may have little.
    """
    try:
        return bpf(command, attributes)
    except PermissionError:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        if resource.getrlimit(resource.RLIMIT_MEMLOCK) == unlimited:
            raise
        with suppress(ValueError):  # no capability to raise it
            resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
        return bpf(command, attributes)


def load_program(
    name: str,
    kind: ProgramType,
    code: bytes,
    *,
    attach_type: AttachType = AttachType.NONE,
    btf_id: int = 0,
) -> int:
    """Load a program; return its file descriptor. ``btf_id`` is that of the function or event.

    Raises OSError where the kernel refuses.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    gpl = ctypes.create_string_buffer(b"GPL")
    attributes = _ProgramLoad(
        prog_type=kind,
        insn_cnt=len(code) // 8,
        insns=ctypes.addressof(instructions),
        license=ctypes.addressof(gpl),
        prog_name=_short(name).encode(),
        expected_attach_type=attach_type,
        attach_btf_id=btf_id,
    )
    # The verifier breaks off where a signal is pending; its handler has run when we are here again.
    for _ in range(_LOAD_TRIES):
        with suppress(BlockingIOError):
            return allocate(Command.PROG_LOAD, attributes)
    return allocate(Command.PROG_LOAD, attributes)


def _short(name: str) -> str:
    """The 15 characters that the kernel keeps of a program's name: its end tells the copy."""
    name = name.split("__")[-1].removeprefix("on_")
    return name if len(name) <= 15 else name[:13] + name[-2:]


def run_raw_tracepoint(program_fd: int) -> None:
    """Run the program of a raw tracepoint that takes no arguments, here and now.

    Raises OSError: kernels before v5.10 cannot, see commit 1b4d60ec162f ("bpf: Enable
    BPF_PROG_TEST_RUN for raw_tracepoint").
    """
    bpf(Command.PROG_TEST_RUN, _TestRun(prog_fd=program_fd))


class RawTracepointRun:
    """Runs the program of a raw tracepoint again and again, with arguments of its own."""

    _ON_CPU = 1  # BPF_F_TEST_RUN_ON_CPU

    def __init__(self, program_fd: int) -> None:
        """Prepare for a program that reads two arguments at most."""
        self._arguments = (ctypes.c_uint64 * 2)()
        self._attributes = _TestRun(
            prog_fd=program_fd,
            ctx_size_in=ctypes.sizeof(self._arguments),
            ctx_in=ctypes.addressof(self._arguments),
        )

    def __call__(self, first: int = 0, second: int = 0, *, cpu: int | None = None) -> int:
        """Run it, here or on another CPU; return what it returns. Raises OSError."""
        self._arguments[0], self._arguments[1] = first, second
        self._attributes.flags = 0 if cpu is None else self._ON_CPU
        self._attributes.cpu = cpu or 0
        bpf(Command.PROG_TEST_RUN, self._attributes)
        return int(self._attributes.retval)


def open_raw_tracepoint(program_fd: int, name: str | None) -> int:
    """Attach a program to a tracepoint, or (no name) to what it was loaded for.

    Returns the file descriptor of the link, which ends it when it is closed. Raises OSError.
    """
    target = None if name is None else ctypes.create_string_buffer(name.encode())
    attributes = _RawTracepointOpen(
        name=None if target is None else ctypes.addressof(target), prog_fd=program_fd
    )
    return bpf(Command.RAW_TRACEPOINT_OPEN, attributes)
