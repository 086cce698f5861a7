"""Trends: growth told from noise, checked against chance itself."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleak.analysis.trend import MIN_SNAPSHOTS, estimate


def test_a_clean_line():
    trend = estimate([10, 13, 16, 19])
    assert (trend.per_step, trend.low, trend.high) == (3, 3, 3)
    assert trend.grows is True
    assert trend.falls is False
    assert trend.total == 9


@pytest.mark.parametrize("figures", [[1, 2], [1, 2, 3], [5, 5, 5]])
def test_too_few_tell_nothing_however_clean(figures):
    trend = estimate(figures)
    assert trend.grows is None
    assert trend.falls is None
    assert len(figures) < MIN_SNAPSHOTS


def test_one_figure_is_no_trend():
    with pytest.raises(ValueError, match="two"):
        estimate([1])


@pytest.mark.parametrize("length", [5, 10, 30])
def test_a_single_step_is_no_growth(length):
    assert estimate([0] + [1000] * (length - 1)).grows is False


def test_one_odd_reading_hides_no_growth():
    figures = [1000 * step for step in range(10)]
    figures[4] = 10**9
    trend = estimate(figures)
    assert trend.grows is True
    assert trend.per_step == pytest.approx(1000, rel=0.2)


@pytest.mark.parametrize("length", [4, 5, 6, 7])
def test_chance_alone_grows_in_no_more_than_one_order_of_twenty(length):
    """All orders of distinct figures, each as probable as any other where nothing grows."""
    orders = list(itertools.permutations(range(length)))
    growing = sum(estimate(order).grows is True for order in orders)
    assert 0 < growing <= len(orders) * 0.05


def test_growth_beneath_noise_is_found_with_enough_snapshots():
    rng = random.Random(7)
    noisy = [10 * step + rng.gauss(0, 30) for step in range(40)]
    trend = estimate(noisy)
    assert trend.grows is True
    assert trend.low < 10 < trend.high


@given(st.lists(st.integers(0, 10**9), min_size=4, max_size=20), st.integers(1, 10**6))
def test_direction_and_scale(figures, factor):
    trend = estimate(figures)
    turned = estimate([-figure for figure in figures])
    assert (turned.grows, turned.falls) == (trend.falls, trend.grows)
    assert not (trend.grows and trend.falls)
    scaled = estimate([figure * factor for figure in figures])
    assert scaled.grows == trend.grows
    assert scaled.per_step == pytest.approx(trend.per_step * factor)
