"""Whether a figure grows from snapshot to snapshot, and by how much, with its uncertainty.

The rate is the median of the slopes between all pairs of snapshots (Theil and Sen): one odd
reading does not move it, and a single step is no growth. Its interval comes from the exact
distribution of Kendall's S, so it holds for few snapshots and any noise: growth is more than
noise when the lower end of the 90 % interval is above 0. Fewer than 4 snapshots cannot show
that, however clean they look (3 rising figures come about by chance one time in six).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

_TAIL = 0.05
MIN_SNAPSHOTS = 4


@dataclass(frozen=True, slots=True)
class Trend:
    """Growth per step, in the unit of the figure; the interval is None with too few figures."""

    figures: tuple[float, ...]
    per_step: float
    low: float | None
    high: float | None

    @property
    def total(self) -> float:
        """Last figure less the first."""
        return self.figures[-1] - self.figures[0]

    @property
    def grows(self) -> bool | None:
        """Whether it grows by more than noise; None where too few figures tell nothing."""
        return None if self.low is None else self.low > 0

    @property
    def falls(self) -> bool | None:
        """Whether it falls by more than noise; None where too few figures tell nothing."""
        return None if self.high is None else self.high < 0


def estimate(figures: Sequence[float]) -> Trend:
    """The trend of two or more figures, one a snapshot. Raises ValueError for fewer."""
    count = len(figures)
    if count < 2:
        raise ValueError("a trend takes two figures")
    slopes = sorted(
        (figures[later] - figures[earlier]) / (later - earlier)
        for earlier in range(count)
        for later in range(earlier + 1, count)
    )
    rank = _rank_of_bound(count)
    return Trend(
        figures=tuple(figures),
        per_step=median(slopes),
        low=None if rank is None else slopes[rank],
        high=None if rank is None else slopes[-1 - rank],
    )


@lru_cache(maxsize=256)
def _rank_of_bound(count: int) -> int | None:
    """The rank of the slope that bounds the interval: P(inversions <= rank) <= _TAIL.

    Inversions of a random permutation: each further figure adds 0 to its position, evenly.
    """
    chances = [1.0]
    for position in range(1, count):
        wider = [0.0] * (len(chances) + position)
        for inversions, chance in enumerate(chances):
            for added in range(position + 1):
                wider[inversions + added] += chance / (position + 1)
        chances = wider
    below = 0.0
    rank = None
    for inversions, chance in enumerate(chances):
        below += chance
        if below > _TAIL:
            break
        rank = inversions
    return rank
