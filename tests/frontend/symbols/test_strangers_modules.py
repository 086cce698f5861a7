"""Module files that a stranger made to take memory or time."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import subprocess
import tracemalloc

import pytest

from kleak.errors import TargetError
from kleak.symbols.module_image import ModuleImage


def module(*sections: tuple[str, int, bytes, int], link: int = 0) -> bytes:
    """A relocatable ELF file; sections by name, type, content and the size that they claim."""
    names = b"\0"
    places = []
    body = b""
    for name, kind, content, size in [*sections, (".shstrtab", 3, b"", 0)]:
        places.append([len(names), kind, 64 + len(body), size, name])
        names += name.encode() + b"\0"
        body += content
    places[-1][2:4] = [64 + len(body), len(names)]
    body += names
    headers = bytes(64) + b"".join(
        struct.pack("<IIQQQQIIQQ", at, kind, 0, 0, offset, size, link, 0, 1, 24)
        for at, kind, offset, size, _ in places
    )
    count = len(places) + 1
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = ident + struct.pack(
        "<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, count, count - 1
    )
    return head + body + headers


THIS = (".gnu.linkonce.this_module", 1, b"\0" * 24 + b"x".ljust(1000, b"\0"), 1024)
NOBITS, PROGBITS, SYMTAB, STRTAB = 8, 1, 2, 3


def peak(path) -> int:
    """Bytes that opening the file takes; it is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(TargetError):
            ModuleImage(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_builder_of_these_tests_makes_a_module(tmp_path):
    path = tmp_path / "x.ko"
    path.write_bytes(module(THIS))
    assert ModuleImage(path).name == "x"


@pytest.mark.parametrize("name", [".modinfo", ".note.gnu.build-id", ".symtab"])
def test_sections_that_hold_no_bytes(tmp_path, name):
    path = tmp_path / "x.ko"
    path.write_bytes(module((name, NOBITS, b"", 1_500_000_000), THIS))
    assert peak(path) < 20 << 20


def test_a_name_that_many_symbols_share(tmp_path):
    """A megabyte of name, 10,000 times, would be 10 GB."""
    symbols = struct.pack("<IBBHQQ", 0, 2, 0, 1, 0, 0) * 10_000
    text = b"a" * (1 << 20) + b"\0"
    sections = [
        (".strtab", STRTAB, text, len(text)), (".symtab", SYMTAB, symbols, len(symbols)), THIS,
    ]  # fmt: skip
    path = tmp_path / "x.ko"
    path.write_bytes(module(*sections, link=1))
    assert peak(path) < 40 << 20


def test_many_tags(tmp_path):
    tags = b"parm=a:b\0" * 100_000
    path = tmp_path / "x.ko"
    path.write_bytes(module((".modinfo", PROGBITS, tags, len(tags)), THIS))
    assert len(ModuleImage(path).information["parm"]) == 100_000


@pytest.mark.parametrize("packed", ["xz", "gz", "zst"])
def test_what_unpacks_without_end(tmp_path, packed):
    plain = module(THIS) + bytes(300 << 20)
    path = tmp_path / f"x.ko.{packed}"
    if packed == "xz":
        path.write_bytes(lzma.compress(plain, preset=0))
    elif packed == "gz":
        path.write_bytes(gzip.compress(plain, 9))
    else:
        (tmp_path / "x").write_bytes(plain)
        subprocess.run(["zstd", "-q", tmp_path / "x", "-o", path], check=True)
    del plain
    assert peak(path) < 250 << 20


def test_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "x.ko")
    with pytest.raises(Exception, match="is no regular file"):
        ModuleImage(tmp_path / "x.ko")
