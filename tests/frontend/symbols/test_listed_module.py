"""Names of a module without a file, by what the kernel listed."""

from __future__ import annotations

import pytest

from kleak.model.session import Frame
from kleak.parsers.kallsyms import Symbol
from kleak.symbols.listed_module import ListedModule
from kleak.symbols.symboliser import ModuleLoad

BASE, INIT = 0xFFFFFFFFC0100000, 0xFFFFFFFFC0200000
LISTED = ListedModule(
    "client",
    BASE,
    [
        Symbol(BASE + 0x40, "t", "second", "client"),
        Symbol(BASE, "T", "first", "client"),
        Symbol(BASE + 0x60, "d", "data", "client"),
        Symbol(BASE + 0x80, "t", "third", "client"),
    ],
)


@pytest.mark.parametrize(
    ("address", "frame"),
    [
        (BASE + 1, Frame("client", "first", 1)),
        (BASE + 0x40, Frame("client", "first", 0x40)),
        (BASE + 0x41, Frame("client", "second", 1)),
        (BASE + 0x70, Frame("client", "second", 0x30)),
        (BASE + 0x90, Frame("client", "third", 0x10)),
    ],
)
def test_functions_by_return_address(address: int, frame: Frame) -> None:
    load = ModuleLoad(LISTED, BASE, 0x1000, INIT, 0x1000, 1, 2)
    assert load.fits
    place = load.place(address)
    assert place is not None
    found = LISTED.resolve(*place)
    assert Frame("client", found.symbol, found.offset) == frame


def test_of_its_init_nothing_is_known() -> None:
    assert LISTED.resolve("init", 0x10).symbol is None


def test_one_that_lies_elsewhere_does_not_fit() -> None:
    assert not ModuleLoad(LISTED, BASE, 0x20, INIT, 0, 1).fits
