"""Reading kernel memory out of a core file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kleak.capture.gone_modules import read_words

BASE = 0xFFFFFFFFC0A90000


@pytest.fixture
def kcore(tmp_path: Path) -> Path:
    """An ELF core file of two segments, the second with the words 2, 3, 5, 7."""
    path = tmp_path / "kcore"
    segments = ((1, 0x1000, 8, b"\xff" * 8), (1, BASE, 32, struct.pack("<4Q", 2, 3, 5, 7)))
    header = b"\x7fELF" + bytes(28) + struct.pack("<Q", 64) + bytes(14) + struct.pack("<HH", 56, 2)
    header = header.ljust(64, b"\0")
    table, contents = b"", b""
    for kind, address, size, data in segments:
        offset = 64 + 2 * 56 + len(contents)
        table += struct.pack("<IIQQQQQQ", kind, 0, offset, address, 0, size, size, 0)
        contents += data
    path.write_bytes(header + table + contents)
    return path


@pytest.mark.parametrize(
    ("start", "size", "words"),
    [
        (BASE, 32, [2, 3, 5, 7]),
        (BASE + 8, 16, [3, 5]),
        (BASE + 16, 32, []),  # reaches beyond it
        (BASE - 8, 16, []),
        (0x1000, 8, [(1 << 64) - 1]),
    ],
)
def test_words(kcore: Path, start: int, size: int, words: list[int]) -> None:
    assert list(read_words(start, size, kcore)) == words
