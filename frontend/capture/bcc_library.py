"""bcc, and what it leaves to do: the one module that imports it."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kleak.errors import UnsupportedError


def import_bcc() -> Any:
    """Return the bcc module. Raises UnsupportedError with the package that has it."""
    try:
        import bcc
    except ImportError as error:
        raise UnsupportedError(
            "Python cannot import bcc: install the distribution's package (Debian: "
            "apt-get install python3-bpfcc) and run kleak with the distribution's Python "
            "(a virtual environment needs --system-site-packages)"
        ) from error
    if not hasattr(bcc, "BPF"):
        raise UnsupportedError(
            f"{bcc.__file__} is another package that is called bcc too: remove it and install "
            "the distribution's python3-bpfcc"
        )
    return bcc


def manual_bpf(bcc: Any) -> Any:
    """Return a class for bcc's BPF that attaches nothing by itself."""

    class ManualBpf(bcc.BPF):  # type: ignore[misc]  # bcc has no types
        """bcc's BPF that attaches nothing by itself: each hook has ways that may fail."""

        def _trace_autoload(self) -> None:
            pass

    return ManualBpf


_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_BPF_PROG_LOAD = 5
_BPF_PROG_TYPE_TRACING = 26
_BPF_TRACE_FENTRY, _BPF_TRACE_FEXIT = 24, 25


class _LoadAttributes(ctypes.Structure):
    """The part of union bpf_attr (include/uapi/linux/bpf.h) that BPF_PROG_LOAD reads."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
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


def load_tracing(bcc: Any, bpf: Any, name: bytes, *, btf_id: int, at_exit: bool) -> int:
    """Load a program for the entry or exit of a kernel function; return its file descriptor.

    Not by bcc, which reads all of the kernel's BTF anew for each program: 8 seconds each in an
    emulated machine. Raises OSError where the kernel refuses.
    """
    library = bcc.lib
    start = library.bpf_function_start(bpf.module, name)
    instructions = ctypes.cast(start, ctypes.c_void_p).value
    gpl = ctypes.create_string_buffer(b"GPL")
    attributes = _LoadAttributes(
        prog_type=_BPF_PROG_TYPE_TRACING,
        insn_cnt=library.bpf_function_size(bpf.module, name) // 8,
        insns=instructions,
        license=ctypes.addressof(gpl),
        prog_name=name.split(b"__")[-1][:15],
        expected_attach_type=_BPF_TRACE_FEXIT if at_exit else _BPF_TRACE_FENTRY,
        attach_btf_id=btf_id,
    )
    number = _SYS_BPF.get(platform.machine())
    if number is None:
        raise OSError(f"the bpf system call of {platform.machine()} is not known")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, _BPF_PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(fd)


def missed_runs(program_fd: int) -> int:
    """Return how often the kernel skipped a program because it was running already.

    In fdinfo since commit 9ed9e9ba2337 ("bpf: Count the number of times recursion was
    prevented", v5.12); kernels before do not tell, nor do they guard raw tracepoints.
    """
    with open(f"/proc/self/fdinfo/{program_fd}") as fdinfo:
        for line in fdinfo:
            if line.startswith("recursion_misses:"):
                return int(line.split()[1])
    return 0


def stack_depth() -> int:
    """Return how many frames the kernel walks at most; a program's buffer may not be larger."""
    with open("/proc/sys/kernel/perf_event_max_stack") as sysctl:
        return min(127, int(sysctl.read()))


@contextmanager
def compiler_output() -> Iterator[Any]:
    """Keep what clang, libbpf and the verifier write to standard error out of the user's sight.

    Gives a function that returns the text so far.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as output:
        stderr = os.dup(2)
        os.dup2(output.fileno(), 2)

        def said() -> str:
            output.seek(0)
            return output.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


_MADV_DONTNEED = 4
_COMPILER = ("libLLVM", "libclang", "libbcc")


def release_compiler() -> None:
    """Give back the memory that compiling took: freed blocks, and clang's own code.

    The code comes from its file again when bcc calls it, to clean up. Without this it stays
    resident for as long as kleak runs.
    """
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, rights, _, _, _, *path = line.split()
            # Only code: what is merely read-only may have been relocated, and would come back
            # as it is in the file.
            if rights == "r-xp" and os.path.basename("".join(path)).startswith(_COMPILER):
                start, end = (int(address, 16) for address in span.split("-"))
                libc.madvise(
                    ctypes.c_void_p(start),
                    ctypes.c_size_t(end - start),
                    ctypes.c_int(_MADV_DONTNEED),
                )


def first_error(output: str) -> str | None:
    """Return the first line of a compiler's output that tells of an error."""
    return next((line for line in output.splitlines() if "error:" in line), None)
