"""Reading objects out of a core file: bounds, refusals, and what counts as a pointer."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from kleak.capture.witnesses import pointers
from kleak.capture.witnesses.pointers import read_pointers
from kleak.model.session import Allocation
from kleak.model.witnesses import USED, refused
from tests.support.samples import KERNFS, site

DIRECT_MAP = 0xFFFF888000000000
VMALLOC = 0xFFFFC90000000000
PAGE = 4096


def core(path, memory):
    """Write a core file as /proc/kcore is one, with ``memory`` by the address of each segment."""
    offset = 0x1000
    headers = b""
    for address, data in memory.items():
        headers += struct.pack("<IIQQQQQQ", 1, 7, offset, address, 0, len(data), len(data), PAGE)
        offset += len(data)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, 0, 0, 64, 56, len(memory), 0, 0, 0
    )
    path.write_bytes((head + headers).ljust(0x1000, b"\0") + b"".join(memory.values()))
    return path


def holding(*words):
    return struct.pack(f"<{len(words)}Q", *words).ljust(PAGE, b"\0")


def with_kept(address, *, size=96, allocator="kmalloc", number=1, **more):
    kept = tuple(
        Allocation(address + i * PAGE, size, size, 10 + i, 1, 1, "insmod") for i in range(number)
    )
    return replace(site([3], allocator=allocator, **more), kept=kept)


def test_the_address_of_another_sites_object(tmp_path):
    path = core(
        tmp_path / "kcore",
        {DIRECT_MAP: holding(0, VMALLOC, 7, DIRECT_MAP), VMALLOC: holding(1, DIRECT_MAP)},
    )
    one, other = with_kept(DIRECT_MAP), with_kept(VMALLOC, allocator="vmalloc", frames=KERNFS)
    found = read_pointers([one, other], path)
    assert found.state == USED
    assert found.text == (f"{DIRECT_MAP:#x} 8 {VMALLOC:#x}\n{VMALLOC:#x} 8 {DIRECT_MAP:#x}\n")


def test_only_what_belongs_to_the_object_is_looked_at(tmp_path):
    path = core(tmp_path / "kcore", {DIRECT_MAP: holding(*[0] * 12, VMALLOC)})
    other = with_kept(VMALLOC, frames=KERNFS)
    assert read_pointers([with_kept(DIRECT_MAP, size=96), other], path).text == ""
    assert read_pointers([with_kept(DIRECT_MAP, size=104), other], path).text != ""


def test_the_middle_of_an_object_is_not_its_address(tmp_path):
    path = core(tmp_path / "kcore", {DIRECT_MAP: holding(VMALLOC + 8)})
    sites = [with_kept(DIRECT_MAP), with_kept(VMALLOC, frames=KERNFS)]
    assert read_pointers(sites, path).text == ""


@pytest.mark.parametrize("allocator", ["ioremap", "vmap", "dma", "percpu", "vm_map_ram"])
def test_memory_that_is_not_the_kernels_own_is_never_read(tmp_path, allocator):
    path = core(tmp_path / "kcore", {DIRECT_MAP: holding(VMALLOC)})
    sites = [with_kept(DIRECT_MAP, allocator=allocator), with_kept(VMALLOC, frames=KERNFS)]
    assert read_pointers(sites, path).text == ""


def test_addresses_that_the_file_does_not_have(tmp_path):
    path = core(tmp_path / "kcore", {DIRECT_MAP: holding(VMALLOC)})
    sites = [
        with_kept(DIRECT_MAP - PAGE),
        with_kept(DIRECT_MAP + PAGE - 8),
        with_kept((1 << 64) - 8),
        with_kept(VMALLOC, frames=KERNFS),
    ]
    assert read_pointers(sites, path).text == ""


def test_what_is_read_is_bounded(tmp_path, monkeypatch):
    path = core(tmp_path / "kcore", {DIRECT_MAP: holding(VMALLOC) * 11})
    sites = [with_kept(DIRECT_MAP, number=11), with_kept(VMALLOC, frames=KERNFS)]

    def lines():
        return str(read_pointers(sites, path).text).count("\n")

    assert lines() == 11
    for limit, value, expected in (
        ("OBJECTS_OF_A_SITE", 7, 7),
        ("OBJECTS_IN_ALL", 5, 5),
        ("BYTES_IN_ALL", 3 * 96, 3),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(pointers, limit, value)
            assert lines() == expected


def test_no_file_and_no_core(tmp_path):
    assert read_pointers([], tmp_path / "none").state == refused(
        f"{tmp_path}/none: No such file or directory"
    )
    (tmp_path / "text").write_text("no core")
    assert read_pointers([], tmp_path / "text").state.why.startswith(f"{tmp_path}/text: ")
