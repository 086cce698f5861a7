"""Who holds a page, from a file like /proc/kpageflags."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kleak.capture import page_holders
from kleak.capture.page_holders import PageHolders

DIRECT_MAP = 0xFF16DA7F80000000
PAGE = os.sysconf("SC_PAGESIZE")
BITS = {0: (), 1: (5,), 2: (10,), 3: (7,), 4: (5, 12), 5: (26,), 6: (0, 2)}


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kpageflags"
    words = (sum(1 << bit for bit in bits) for bits in BITS.values())
    path.write_bytes(b"".join(word.to_bytes(8, "little") for word in words))
    monkeypatch.setattr(page_holders, "KPAGEFLAGS", path)
    return path


@pytest.mark.parametrize(
    ("page", "holder"),
    [
        (0, None),
        (1, "page cache"),
        (2, "free"),
        (3, "slab"),
        (4, "user memory"),
        (5, "page tables"),
        (6, None),
        (7, None),
    ],
)
def test_holder_by_flags(flags: Path, page: int, holder: str | None) -> None:
    assert flags.exists()
    with PageHolders(DIRECT_MAP) as pages:
        assert pages.holder(DIRECT_MAP + page * PAGE) == holder


def test_nothing_is_known_without_the_direct_map(flags: Path) -> None:
    assert flags.exists()
    with PageHolders(None) as pages:
        assert pages.holder(DIRECT_MAP + PAGE) is None


def test_nothing_is_known_without_the_file(flags: Path) -> None:
    flags.unlink()
    with PageHolders(DIRECT_MAP) as pages:
        assert pages.holder(DIRECT_MAP + PAGE) is None
