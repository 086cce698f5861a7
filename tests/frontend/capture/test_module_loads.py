"""In which cycles a module was there, where several come and go."""

from __future__ import annotations

from kleak.capture.engine.records import LoadRecord
from kleak.capture.module_loads import last_epoch
from kleak.symbols.kernel_table import TextRange


def load(cycle, loaded, unloaded):
    text = TextRange(0, 0)
    return LoadRecord(f"m{cycle}", cycle, text, text, loaded, unloaded)


def test_a_load_lasts_into_the_cycles_that_began_before_it_ended():
    records = (load(1, 10, 35), load(2, 20, 25), load(3, 30, None), load(4, 40, 45))
    assert [last_epoch(record, records) for record in records] == [3, 2, 4, 4]


def test_a_reload_ends_nothing_before_it():
    records = (load(1, 10, 15), load(2, 20, 25))
    assert [last_epoch(record, records) for record in records] == [1, 2]
