"""In which cycles the code of a module that came meanwhile has its names."""

from __future__ import annotations

from typing import Any

import pytest

from kleak.capture.engine.records import LoadRecord
from kleak.capture.target.visitors import Visitors, _Seen
from kleak.parsers.kallsyms import Symbol
from kleak.symbols.kernel_table import TextRange
from kleak.symbols.listed_module import ListedModule

BASE = 0xFFFFFFFFC0100000
BEGAN = [100, 200, 300]


class Recorded:
    """A tracer that noted one load."""

    def __init__(self, cycle: int, came: int, went: int | None) -> None:
        text = TextRange(BASE, BASE + 0x1000)
        self.record = LoadRecord("visitor_", cycle, text, TextRange(0, 0), came, went)

    def visits(self) -> list[LoadRecord]:
        return [self.record]


@pytest.mark.parametrize(
    ("cycle", "came", "went", "epochs"),
    [
        (1, 110, None, [1, 2, 3]),
        (2, 210, 220, [2]),
        (1, 110, 310, [1, 2, 3]),
        (0, 50, 120, [1]),
        (0, 50, 60, []),  # it was gone before the first
    ],
)
def test_epochs(cycle: int, came: int, went: int | None, epochs: list[int]) -> None:
    tracer: Any = Recorded(cycle, came, went)
    visitors = Visitors(tracer, ())
    assert visitors.loads(BEGAN) == []  # nobody knows its names
    listed = ListedModule("visitor_", BASE, [Symbol(BASE, "t", "work", "visitor_")])
    visitors._seen["visitor_", BASE] = _Seen(None, listed)
    found = [epoch for _, load in visitors.loads(BEGAN) for epoch in load.epochs]
    assert found == epochs


def test_what_lay_elsewhere_is_another() -> None:
    tracer: Any = Recorded(1, 110, None)
    visitors = Visitors(tracer, ())
    visitors._seen["visitor_", BASE + 0x1000] = _Seen(None, ListedModule("visitor_", BASE, []))
    assert visitors.loads(BEGAN) == []
