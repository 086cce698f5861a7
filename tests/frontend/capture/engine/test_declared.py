"""What C and Python both know is read from the C text: nothing shifts when that changes."""

from __future__ import annotations

import re

import pytest

from kleak.capture.engine import declared
from kleak.capture.engine.bpf_source import read_source
from kleak.capture.read_session import LOSSES, OBSERVED, REPAIRS, UNREPORTED

TEXT = """
enum fruit {
	FRUIT_APPLE, /* FRUIT_PEAR, in a comment */
	FRUIT_QUINCE = 4,
	FRUIT_PLUM,
};
#define TREES 0x20
#define ROWS 4097 /* of
 * them */
#define ALL (TREES * ROWS)
"""


def test_enumerators_have_the_numbers_that_c_gives_them() -> None:
    assert declared.enumerators(TEXT, "fruit") == {
        "FRUIT_APPLE": 0,
        "FRUIT_QUINCE": 4,
        "FRUIT_PLUM": 5,
    }
    with pytest.raises(ValueError, match="no enum nut"):
        declared.enumerators(TEXT, "nut")


def test_macros_are_numbers() -> None:
    assert declared.defined(TEXT, "TREES") == 32
    assert declared.defined(TEXT, "ROWS") == 4097
    for name in ("ALL", "REE", "NONE"):
        with pytest.raises(ValueError, match=f"no number {name}"):
            declared.defined(TEXT, name)


@pytest.mark.parametrize("before", ["COUNT_ALLOCATED", "COUNT_NESTED", "COUNT_KINDS"])
def test_a_counter_that_is_inserted_shifts_no_other(before: str) -> None:
    text = read_source()
    first = declared.enumerators(text, "counter")
    changed = declared.enumerators(re.sub(rf"\t{before},", f"\tCOUNT_NEW,\n\t{before},", text),
                                   "counter")  # fmt: skip
    place = first[before]
    assert changed["COUNT_NEW"] == place
    assert {name: number for name, number in changed.items() if name != "COUNT_NEW"} == {
        name: number + (number >= place) for name, number in first.items()
    }


def test_a_report_accounts_for_each_counter() -> None:
    """A new one must be said to be a loss, a repair, or no matter of the reader's."""
    groups = (set(LOSSES), set(OBSERVED), set(REPAIRS), set(UNREPORTED))
    assert sorted(name for group in groups for name in group) == sorted(declared.COUNTERS)


def test_what_allocates_twice_is_told_apart_from_what_frees() -> None:
    assert {"kmalloc", "mm_page_alloc"} <= declared.COPIED_ALLOCATIONS
    assert not {"kfree", "mm_page_free", "consume_skb"} & declared.COPIED_ALLOCATIONS
    assert set(declared.COPIED_EVENTS) > declared.COPIED_ALLOCATIONS
