"""What ``dump=`` puts into the kernel log, with dmesg's prefix or without."""

from __future__ import annotations

import re

import pytest

from kleak.parsers.kmemleak import ObjectState, parse_dump

ADDRESS = 0xFFFF88800FE31200
DMESG = """\
[   32.168011] kmemleak: Object 0xffff88800fe31200 (size 512):
[   32.168012] kmemleak:   comm "insmod", pid 331, jiffies 4294937296
[   32.168013] kmemleak:   min_count = 1
[   32.168014] kmemleak:   count = 0
[   32.168015] kmemleak:   flags = 0x1
[   32.168016] kmemleak:   checksum = 2094523312
[   32.168017] kmemleak:   backtrace:
[   32.168018]  __kmalloc_cache_noprof+0x2a1/0x340
"""


@pytest.mark.parametrize("log", [DMESG, re.sub(r"(?m)^\[.{14}", "", DMESG)])
def test_counts(log: str) -> None:
    assert parse_dump(log, ADDRESS) == ObjectState(0, 1)
    assert parse_dump(log, ADDRESS + 512) is None


def test_lines_of_others_between() -> None:
    lines = DMESG.splitlines(keepends=True)
    mixed = "[   32.168013] usb 1-1: count = 9\n".join(lines)
    assert parse_dump(mixed, ADDRESS) == ObjectState(0, 1)


def test_the_one_that_was_asked_for() -> None:
    other = DMESG.replace("fe31200", "fe31400").replace(" count = 0", " count = 1")
    assert parse_dump(other + DMESG, ADDRESS) == ObjectState(0, 1)
    assert parse_dump(DMESG + other, ADDRESS) == ObjectState(0, 1)


def test_half_of_it() -> None:
    assert parse_dump(DMESG[: DMESG.index(" count = 0")], ADDRESS) is None


@pytest.mark.parametrize(
    ("count", "min_count", "referenced"),
    [
        (0, 1, False),
        (1, 1, True),
        (1, 2, False),  # vmalloc: the first is the kernel's own description of the region
        (2, 2, True),
        (0, 0, False),  # never reported, by kmemleak_not_leak()
        (0, -1, False),  # by kmemleak_ignore()
    ],
)
def test_referenced(count: int, min_count: int, referenced: bool) -> None:
    assert ObjectState(count, min_count).referenced is referenced
