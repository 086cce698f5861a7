"""bcc, and what it leaves to do: the one module that imports it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kleak.capture.engine.bpf_maps import MapDefinition
from kleak.capture.engine.program_image import ProgramImage, replace_maps
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


def describe_bcc() -> str:
    """Return what tells one installed bcc from another, without the time that importing it takes.

    Raises UnsupportedError, as import_bcc() does, where there is none.
    """
    found = importlib.util.find_spec("bcc")
    if found is None or found.origin is None:
        return str(import_bcc().__file__)
    version = Path(found.origin).with_name("version.py")
    return f"{found.origin} {version.read_text() if version.exists() else import_bcc().__version__}"


def compile_image(bcc: Any, text: str, flags: Sequence[str]) -> ProgramImage:
    """Compile with bcc's clang. Raises Exception, as bcc does for all that goes wrong."""

    class Compiled(bcc.BPF):  # type: ignore[misc]  # bcc has no types
        """bcc's BPF, which attaches nothing by itself: each hook has ways that may fail."""

        def _trace_autoload(self) -> None:
            pass

    library = bcc.lib
    for name, result in _TABLE_FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.bpf_num_tables.restype = ctypes.c_size_t
    library.bpf_num_tables.argtypes = [ctypes.c_void_p]
    bpf = Compiled(text=text.encode(), cflags=flags)
    try:
        module = bpf.module
        maps, places = [], {}
        for place in range(library.bpf_num_tables(module)):
            of_map = {name: getattr(library, name)(module, place) for name in _TABLE_FUNCTIONS}
            places[of_map["bpf_table_fd_id"]] = place
            maps.append(
                MapDefinition(
                    of_map["bpf_table_name"].decode(),
                    of_map["bpf_table_type_id"],
                    of_map["bpf_table_key_size_id"],
                    of_map["bpf_table_leaf_size_id"],
                    of_map["bpf_table_max_entries_id"],
                    of_map["bpf_table_flags_id"],
                    of_map["bpf_table_key_desc_id"].decode(),
                    of_map["bpf_table_leaf_desc_id"].decode(),
                )
            )
        programs = {}
        for number in range(library.bpf_num_functions(module)):
            name = library.bpf_function_name(module, number)
            code = ctypes.string_at(
                library.bpf_function_start(module, name), library.bpf_function_size(module, name)
            )
            programs[name.decode()] = replace_maps(code, places)
    finally:
        bpf.cleanup()
    return ProgramImage(tuple(maps), programs)


_TABLE_FUNCTIONS = {
    "bpf_table_name": ctypes.c_char_p,
    "bpf_table_fd_id": ctypes.c_int,
    "bpf_table_type_id": ctypes.c_int,
    "bpf_table_key_size_id": ctypes.c_size_t,
    "bpf_table_leaf_size_id": ctypes.c_size_t,
    "bpf_table_max_entries_id": ctypes.c_size_t,
    "bpf_table_flags_id": ctypes.c_int,
    "bpf_table_key_desc_id": ctypes.c_char_p,
    "bpf_table_leaf_desc_id": ctypes.c_char_p,
}


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
