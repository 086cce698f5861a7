"""Names in the cycles that repeat the exercise of a module that could not be unloaded."""

from __future__ import annotations

from typing import Any

import pytest

from kleak.capture import module_loads
from kleak.capture.engine.records import LoadRecord
from kleak.capture.module_loads import ModuleLoads
from kleak.model.session import Cycle, Frame
from kleak.parsers.kallsyms import Symbol
from kleak.symbols.kernel_table import TextRange
from kleak.symbols.listed_module import ListedModule

BASE = 0xFFFFFFFFC0100000


class Tracer:
    def __init__(self, *loads: LoadRecord) -> None:
        self.records = loads

    def loads(self) -> tuple[LoadRecord, ...]:
        return self.records

    def visits(self) -> list[LoadRecord]:
        return []


class Table:
    def resolve(self, address: int) -> Frame:
        return Frame(None, None, address)


class Loads(ModuleLoads):
    def run_cycles(self, capture: Any) -> None: ...
    def place(self) -> str:
        return ""

    def cut_off(self, failure: Any) -> int:
        return 0


@pytest.mark.parametrize(("went", "epochs"), [(None, {1, 2, 3}), (150, {1})])
def test_names(monkeypatch: pytest.MonkeyPatch, went: int | None, epochs: set[int]) -> None:
    monkeypatch.setattr(module_loads, "read_kernel_table", Table)
    image: Any = ListedModule("pinned", BASE, [Symbol(BASE, "t", "forget", "pinned")])
    image.build_id = image.version = None
    image.path = "pinned.ko"
    target = module_loads.ModuleTarget("pinned", image.path, (), False, image)
    record = LoadRecord("pinned", 1, TextRange(BASE, BASE + 0x1000), TextRange(0, 0), 100, went)
    driver = Loads(Tracer(record), [target], planned_cycles=3)  # type: ignore[arg-type]
    driver.names()  # as after each cycle
    for number in (2, 3):
        driver.note_repeat(Cycle(number, number * 100, None))
        named = {
            epoch
            for epoch in range(1, number + 1)
            if driver.names().resolve(BASE + 5, epoch) == Frame("pinned", "forget", 5)
        }
        assert named == {epoch for epoch in epochs if epoch <= number}
