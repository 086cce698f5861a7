"""The programs of bpf/scan.c: they read the kernel's memory, and search it for pointers."""

from __future__ import annotations

import hashlib
import mmap
import os
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import TracebackType

from kleak.capture.engine.bcc_library import (
    compile_image,
    compiler_output,
    describe_bcc,
    first_error,
    import_bcc,
)
from kleak.capture.engine.bpf_maps import Map, possible_cpus
from kleak.capture.engine.bpf_source import read_source
from kleak.capture.engine.bpf_syscall import ProgramType, RawTracepointRun, load_program
from kleak.capture.engine.headers import HeaderTree, bcc_environment
from kleak.capture.engine.program_cache import cached_image
from kleak.capture.engine.program_image import ProgramImage, replace_maps
from kleak.capture.machine.kernel_state import read_kernel
from kleak.errors import UnsupportedError

BLOCK_BYTES = 4096  # the defines of bpf/scan.c
BLOCKS_OF_A_RUN = 8
GROUP_BYTES = 16 * 8
FILTER_BITS = 32768 * 64
MAX_GROUPS = 4096
_MOST_OF_A_RUN = BLOCKS_OF_A_RUN * BLOCK_BYTES // GROUP_BYTES
_ALL_ONES = (1 << 64) - 1
_COUNT, _UNREADABLE, _FIRST_GROUP = 0, 1, 2  # struct groups, in words


class ScanPrograms:
    """Reads and searches the kernel's memory. Use as a context, after which nothing is loaded."""

    def __init__(self, headers: HeaderTree) -> None:
        """Prepare to compile with ``headers``, if that was not done before."""
        self._headers = headers
        self._way_back = ExitStack()

    def __enter__(self) -> ScanPrograms:
        """Compile and load. Raises UnsupportedError where bcc or the kernel refuses."""
        with ExitStack() as way_back:
            self._load(self._image(), way_back)
            self._way_back = way_back.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unload."""
        self._way_back.close()

    def _image(self) -> ProgramImage:
        source = read_source("scan.c")

        def compile_now() -> ProgramImage:
            bcc = import_bcc()
            with compiler_output() as said, bcc_environment(self._headers):
                try:
                    return compile_image(bcc, source, [])
                except Exception as error:  # bcc raises bare Exception for all that goes wrong
                    why = first_error(said()) or error
                    raise UnsupportedError(f"bcc cannot compile scan.c: {why}") from error

        means = (read_kernel(), self._headers, describe_bcc())
        key = hashlib.sha256(f"{means} {source}".encode()).hexdigest()
        return cached_image(key, compile_now)[0]

    def _load(self, image: ProgramImage, way_back: ExitStack) -> None:
        maps: dict[str, Map] = {}
        try:
            for definition in image.maps:
                made = maps[definition.name] = Map(definition)
                way_back.callback(made.close)
            numbers = {place: maps[one.name].fd for place, one in enumerate(image.maps)}
            runs = {}
            for name, code in image.programs.items():
                fd = load_program(name, ProgramType.RAW_TRACEPOINT, replace_maps(code, numbers))
                way_back.callback(os.close, fd)
                runs[name] = RawTracepointRun(fd)
            views = {
                name: _words_of(opened, size)
                for name, opened in maps.items()
                if (size := _BYTES.get(name)) is not None
            }
        except OSError as error:
            raise UnsupportedError(f"the kernel refuses scan.c: {error.strerror}") from error
        self._read, self._scan = runs["read_memory"], runs["scan_memory"]
        self._tell = runs["tell_places"]
        self._window, self._filter = views["window"], views["wanted_pages"]
        self._groups, self._layout = views["found_groups"], views["memory_layout"]
        self._places = views["own_places"]
        self._bytes = self._window.cast("B")
        self.map_fds = {name: opened.fd for name, opened in maps.items()}

    # --- reading ------------------------------------------------------------------------------

    def read(self, address: int, size_bytes: int) -> bytes | None:
        """Return what is at an address of the kernel; None where not all of it can be read."""
        parts = []
        while size_bytes > 0:
            part = min(size_bytes, BLOCK_BYTES)
            if self._read(address ^ _ALL_ONES, part):
                return None
            parts.append(bytes(self._bytes[:part]))
            address += part
            size_bytes -= part
        return b"".join(parts)

    def words(self, address: int, count: int) -> array[int] | None:
        """Return ``count`` words of 64 bits; None where not all of them can be read."""
        data = self.read(address, 8 * count)
        return None if data is None else array("Q", data)

    def word(self, address: int) -> int:
        """Return one word of 64 bits, 0 where it cannot be read."""
        return 0 if self._read(address & _ALL_ONES ^ _ALL_ONES, 8) else self._window[0]

    def half(self, address: int) -> int:
        """Return one word of 32 bits, 0 where it cannot be read."""
        return 0 if self._read(address & _ALL_ONES ^ _ALL_ONES, 4) else self._window[0] & 0xFFFFFFFF

    def text(self, address: int, most: int = 64) -> str:
        """Return a text of ``most`` bytes at most."""
        data = self.read(address, min(most, BLOCK_BYTES - address % BLOCK_BYTES)) or b""
        return data.partition(b"\0")[0].decode(errors="replace")

    def current_task(self) -> int:
        """Return the address of this thread's task_struct."""
        self._tell()
        return self._places[0] ^ _ALL_ONES

    def scratch_blocks(self) -> dict[int, int]:
        """Return where the block is that scan_memory() copies to, by the number of the CPU.

        CPUs that are off are left out.
        """
        found = {}
        for cpu in range(possible_cpus()):
            with suppress(OSError):
                self._tell(cpu=cpu)
                found[cpu] = self._places[1]
        return found

    # --- searching ----------------------------------------------------------------------------

    def set_layout(self, direct: int, physical_end: int, memmap: int, memmap_bytes: int) -> None:
        """Say where memory and its struct pages are mapped."""
        for place, value in enumerate((direct, physical_end, memmap, memmap_bytes)):
            self._layout[place] = value

    def want(self, numbers: Iterator[int]) -> None:
        """Search for pages of these numbers (address >> 12; of a struct page, address >> 6)."""
        bits = array("Q", bytes(FILTER_BITS // 8))
        for number in numbers:
            bits[number >> 6 & FILTER_BITS // 64 - 1] |= 1 << (number & 63)
        bits[0] &= ~1  # of it most words would be: those that are 0
        self._filter[:] = memoryview(bits)
        self._groups[_UNREADABLE] = 0

    @property
    def unreadable_blocks(self) -> int:
        """Blocks that the kernel would not read, since want()."""
        return self._groups[_UNREADABLE]

    def scan(self, address: int, blocks: int) -> Iterator[tuple[int, int]]:
        """Yield the addresses of groups of words, with a bit set for each that may be wanted.

        After each run other tasks that wait for this CPU get it.
        """
        groups, run = self._groups, self._scan
        groups[_COUNT] = 0
        while blocks > 0:
            run(address ^ _ALL_ONES, min(blocks, BLOCKS_OF_A_RUN))
            os.sched_yield()
            address += BLOCKS_OF_A_RUN * BLOCK_BYTES
            blocks -= BLOCKS_OF_A_RUN
            count = groups[_COUNT]
            if count > MAX_GROUPS - _MOST_OF_A_RUN or (count and blocks <= 0):
                found = groups[_FIRST_GROUP : _FIRST_GROUP + 2 * count].tolist()
                groups[_COUNT] = 0
                for at, places in zip(found[::2], found[1::2], strict=True):
                    yield at ^ _ALL_ONES, places


_BYTES = {
    "window": BLOCK_BYTES,
    "wanted_pages": FILTER_BITS // 8,
    "found_groups": 16 + 16 * MAX_GROUPS,
    "memory_layout": 32,
    "own_places": 16,
}


def _words_of(opened: Map, size_bytes: int) -> memoryview:
    pages = mmap.mmap(opened.fd, -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)
    return memoryview(pages)[:size_bytes].cast("Q")
