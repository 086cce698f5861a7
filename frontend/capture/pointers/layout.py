"""Where the kernel has memory: found out, for what would say so is hidden on many kernels.

A page of this process whose frame is known (/proc/self/pagemap) is looked for at the places where
the direct map may begin; a pipe tells where the struct page of that frame is.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kleak.capture.engine.hooks import offset
from kleak.capture.pointers.programs import ScanPrograms
from kleak.errors import UnsupportedError
from kleak.parsers.btf import Btf

_IOMEM = Path("/proc/iomem")
_PAGEMAP = Path("/proc/self/pagemap")
_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1
# The direct map begins at a multiple of this, which is what its randomisation keeps (PUD_SIZE on
# x86-64: arch/x86/mm/kaslr.c; ARM64_MEMSTART_ALIGN is no more).
_DIRECT_ALIGNMENT = 1 << 30
_RANGE = re.compile(r"^( *)([0-9a-f]+)-([0-9a-f]+) : (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Frames:
    """Page frames from ``first`` up to, not including, ``end``."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """Addresses at which memory (``direct``) and its struct pages (``memmap``) are mapped.

    ``memory`` is what the machine has as RAM, ``image`` the kernel's own text and data.
    """

    direct: int
    memmap: int
    page_bytes: int
    struct_page_bytes: int
    memory: tuple[Frames, ...]
    image: Frames

    @property
    def frames(self) -> int:
        """The number behind the last page frame."""
        return self.memory[-1].end

    def frame_at(self, address: int) -> int | None:
        """Return the page frame that the direct map has at an address; None outside of it."""
        frame = (address - self.direct) // self.page_bytes
        return frame if 0 <= frame < self.frames else None

    def address_of(self, frame: int) -> int:
        """Return where the direct map has a page frame."""
        return self.direct + frame * self.page_bytes

    def struct_page(self, frame: int) -> int:
        """Return the address of the struct page of a frame."""
        return self.memmap + frame * self.struct_page_bytes

    def described_by(self, address: int) -> tuple[int, int] | None:
        """Return which frame the struct page at an address is of, and the offset in it."""
        frame, inside = divmod(address - self.memmap, self.struct_page_bytes)
        return (frame, inside) if 0 <= frame < self.frames else None


def find_layout(programs: ScanPrograms, btf: Btf) -> MemoryLayout:
    """Find out. Raises UnsupportedError where that fails: then no search is to be trusted."""
    if platform.machine() != "x86_64":
        raise UnsupportedError(f"the layout of memory on {platform.machine()} is not known")
    page_bytes = os.sysconf("SC_PAGESIZE")
    memory, image = _read_iomem(page_bytes)
    struct_page_bytes = btf.struct_size("page")
    if not memory or image is None or not struct_page_bytes:
        raise UnsupportedError(f"{_IOMEM} or the kernel's types do not tell where memory is")
    with _known_page(page_bytes) as (page, content, frame):
        direct = _find_direct(programs, content, frame, page_bytes, memory[-1].end)
        struct_page = _struct_page_of(programs, btf, page, page_bytes)
    memmap = struct_page - frame * struct_page_bytes
    return MemoryLayout(direct, memmap, page_bytes, struct_page_bytes, memory, image)


def private_data(programs: ScanPrograms, btf: Btf, fd: int) -> int:
    """Return file->private_data of an open file of this process, 0 where it cannot be read."""
    files = programs.word(programs.current_task() + offset(btf, "task_struct", "files"))
    table = programs.word(files + offset(btf, "files_struct", "fdt"))
    entries = programs.word(table + offset(btf, "fdtable", "fd"))
    file = programs.word(entries + 8 * fd)
    return programs.word(file + offset(btf, "file", "private_data")) if file else 0


def _read_iomem(page_bytes: int) -> tuple[tuple[Frames, ...], Frames | None]:
    memory, image = [], []
    for _, start, end, what in _RANGE.findall(_IOMEM.read_text()):
        first, last = int(start, 16), int(end, 16)
        # What was added later has its driver behind it: "System RAM (virtio_mem)".
        if what == "System RAM" or what.startswith("System RAM ("):
            memory.append(Frames(-(-first // page_bytes), (last + 1) // page_bytes))
        elif what in ("Kernel code", "Kernel rodata", "Kernel data", "Kernel bss"):
            image += [first // page_bytes, last // page_bytes + 1]
    whole = [frames for frames in sorted(memory, key=lambda one: one.first) if frames.end > 0]
    return tuple(whole), Frames(min(image), max(image)) if image and max(image) > 1 else None


@contextmanager
def _known_page(page_bytes: int) -> Iterator[tuple[int, bytes, int]]:
    """Give a page of this process: its address here, what is in it, and its frame."""
    content = os.urandom(page_bytes)
    with mmap.mmap(-1, page_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        pages[:] = content
        anchor = ctypes.c_char.from_buffer(pages)
        address = ctypes.addressof(anchor)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(page_bytes))
        try:
            yield address, content, _frame_of(address, page_bytes)
        finally:
            libc.munlock(ctypes.c_void_p(address), ctypes.c_size_t(page_bytes))
            del anchor


def _frame_of(address: int, page_bytes: int) -> int:
    with _PAGEMAP.open("rb", buffering=0) as file:
        entry = int.from_bytes(os.pread(file.fileno(), 8, address // page_bytes * 8), "little")
    frame = entry & _FRAME
    if not entry & _PRESENT or not frame:
        raise UnsupportedError(f"{_PAGEMAP} does not tell the frames of pages")
    return frame


def _find_direct(
    programs: ScanPrograms, content: bytes, frame: int, page_bytes: int, frames: int
) -> int:
    # A task_struct is in a slab, so in the direct map.
    highest = programs.current_task() // _DIRECT_ALIGNMENT * _DIRECT_ALIGNMENT
    lowest = highest - frames * page_bytes - _DIRECT_ALIGNMENT
    for start in range(highest, lowest, -_DIRECT_ALIGNMENT):
        if programs.read(start + frame * page_bytes, page_bytes) == content:
            return start
    raise UnsupportedError("the direct map of memory was not found")


def _struct_page_of(programs: ScanPrograms, btf: Btf, page: int, page_bytes: int) -> int:
    class _Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))

    libc = ctypes.CDLL(None, use_errno=True)
    reading, writing = os.pipe()
    try:
        vector = _Vector(page, page_bytes)
        if libc.vmsplice(writing, ctypes.byref(vector), ctypes.c_size_t(1), 0) != page_bytes:
            raise UnsupportedError("a page cannot be put into a pipe")
        pipe = private_data(programs, btf, reading)
        buffers = programs.word(pipe + offset(btf, "pipe_inode_info", "bufs"))
        found = programs.word(buffers + offset(btf, "pipe_buffer", "page"))
    finally:
        os.close(reading)
        os.close(writing)
    if not found:
        raise UnsupportedError("the struct page of a page in a pipe was not found")
    return found
