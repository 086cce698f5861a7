"""Who holds a page, from a file like /proc/kpageflags."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kleak.capture.witnesses import page_holders
from kleak.capture.witnesses.page_holders import PageHolders
from kleak.model.doctor import Check, State
from kleak.model.session import HELD_BY_ANOTHER, HELD_BY_ITS_TASK
from kleak.model.witnesses import USED, WitnessState, absent, not_asked, refused

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
        assert pages.holder(DIRECT_MAP + page * PAGE, 331) == holder


def test_nothing_is_known_without_the_direct_map(flags: Path) -> None:
    assert flags.exists()
    with PageHolders(None) as pages:
        assert pages.holder(DIRECT_MAP + PAGE, 331) is None


@pytest.mark.parametrize(
    ("state", "found", "direct_map", "says"),
    [
        (State.NO, "not built into this kernel", None, absent("not built into this kernel")),
        (State.NO, "off", DIRECT_MAP, absent("off")),
        (State.YES, "on", None, not_asked("no page was seen that it could be asked for")),
        (State.YES, "on", DIRECT_MAP, refused("it could not be opened")),
    ],
)
def test_why_page_owner_is_absent_is_what_doctor_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State, found: str,
    direct_map: int | None, says: WitnessState,
) -> None:  # fmt: skip
    monkeypatch.setattr(page_holders, "PAGE_OWNER", tmp_path / "none")
    finding = Check("witnesses", "page_owner", state, found)
    monkeypatch.setattr(page_holders, "examine_page_owner", lambda: finding)
    with PageHolders(direct_map) as pages:
        assert pages.owner_state == says


def test_nothing_is_known_without_the_file(flags: Path) -> None:
    flags.unlink()
    with PageHolders(DIRECT_MAP) as pages:
        assert pages.holder(DIRECT_MAP + PAGE, 331) is None


RECORD = (
    "Page allocated via order 0, mask 0xcc0(GFP_KERNEL), pid 337, tgid 331 (insmod), ts 7 ns\n"
    "PFN 0x{page:x} type Unmovable Block 0 type Unmovable Flags 0x0()\n"
    " leak_it+0x1c/0x30 [leaky]\n\n"
)


@pytest.mark.parametrize(
    ("named", "tgid", "holder"),
    [(6, 331, HELD_BY_ITS_TASK), (6, 337, HELD_BY_ANOTHER), (7, 331, None)],
)
def test_holder_by_page_owner(
    flags: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: int,
    tgid: int,
    holder: str | None,
) -> None:
    """The file's offset is the page frame; what is read there may be of a later one."""
    assert flags.exists()
    path = tmp_path / "page_owner"
    path.write_text("......" + RECORD.format(page=named))
    monkeypatch.setattr(page_holders, "PAGE_OWNER", path)
    with PageHolders(DIRECT_MAP) as pages:
        assert pages.owner_state == USED
        assert pages.holder(DIRECT_MAP + 6 * PAGE, tgid) == holder
        assert pages.holder(DIRECT_MAP + 3 * PAGE, tgid) == "slab"
