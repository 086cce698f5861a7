"""What the data of a gone module leads to, read out of a core file."""

from __future__ import annotations

from pathlib import Path

import pytest

from kleak.capture.engine.records import LedgerEntry
from kleak.capture.machine.kcore import kernel_memory
from kleak.capture.witnesses import gone_modules
from kleak.capture.witnesses.gone_modules import follow
from tests.frontend.capture.witnesses.test_pointers import DIRECT_MAP, VMALLOC, core, holding

DATA = 0xFFFFFFFFC0000000
FAR = DIRECT_MAP + (1 << 20)


def entry(address: int, family: str = "kmalloc") -> LedgerEntry:
    return LedgerEntry(address, 1, 128, 120, 1000, 1, family, 331, "insmod")


def test_pointers_to_it_and_into_it_lead_on(tmp_path: Path) -> None:
    """The data points into the first, that to the second, and the second into the third."""
    first, second, third, other, behind = (entry(DIRECT_MAP + i * 256) for i in range(5))
    objects = [0] * 512
    objects[1] = second.address
    objects[32 + 15] = third.address + 127
    objects[96] = second.address  # nothing leads to the other, which holds this
    memory = {
        DATA: holding(0, first.address + 16, behind.address - 1, behind.address + 128),
        DIRECT_MAP: holding(*objects),
    }
    with kernel_memory(core(tmp_path / "kcore", memory)) as read:
        reached = follow(read, {DATA: 4096}, [behind, third, first, other, second])
    assert reached == {first.address, second.address, third.address}


def test_what_is_followed_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of four, of which the first two may be looked into."""
    monkeypatch.setattr(gone_modules, "MOST_FOLLOWED", 2)
    chain = [entry(DIRECT_MAP + i * 128) for i in range(4)]
    objects = [0] * 512
    for i, following in enumerate(chain[1:]):
        objects[i * 16 + 3] = following.address
    memory = {DATA: holding(chain[0].address), DIRECT_MAP: holding(*objects)}
    with kernel_memory(core(tmp_path / "kcore", memory)) as read:
        reached = follow(read, {DATA: 4096}, chain)
    assert reached == {one.address for one in chain[:3]}


def test_an_area_is_reached_and_not_read(tmp_path: Path) -> None:
    """It may be registers of a device."""
    area, behind = entry(VMALLOC, "vmap_area"), entry(FAR)
    memory = {DATA: holding(VMALLOC), VMALLOC: holding(FAR)}
    with kernel_memory(core(tmp_path / "kcore", memory)) as read:
        assert follow(read, {DATA: 4096}, [area, behind]) == {VMALLOC}
        assert follow(read, {DATA: 4096}, []) == frozenset()
