"""What the counters say between two readings."""

from __future__ import annotations

from kleak.capture.engine.records import Counters


def test_since_takes_what_was_before_away() -> None:
    before = Counters({"freed": 5}, {"kfree": (2, 1)}, {"kfree": 2})
    after = Counters({"freed": 12, "walks": 3}, {"kfree": (6, 1), "dma_free": (1, 1)}, {"kfree": 5})
    between = after.since(before)
    assert between.counted == {"freed": 7, "walks": 3}
    assert between.missed_runs == {"kfree": (4, 0), "dma_free": (1, 1)}
    assert between.made_good == {"kfree": 3}
    assert between.lost_events() == {"dma_free": 1}


def test_gone_is_all_that_is_not_outstanding_any_more() -> None:
    counted = {"freed": 7, "double_events": 5, "reused_addresses": 3, "foreign_frees": 11}
    assert Counters(counted, {}, {}).gone == 15


def test_what_both_copies_missed_is_lost() -> None:
    """An allocation's second copy may have been held back by an old mark; a free's never is."""
    missed = {"kfree": (9, 2), "kmalloc": (9, 2), "percpu_alloc_percpu": (5,)}
    lost = Counters({}, missed, {"kfree": 6, "kmalloc": 6}).lost_events()
    assert lost == {"kfree": 2, "kmalloc": 3, "percpu_alloc_percpu": 5}
