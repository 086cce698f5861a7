"""What captures lose, wherever the tests run: some kernels do not show all kinds of memory."""

from __future__ import annotations

from collections.abc import Mapping

from kleak.model.session import KINDS_NOT_SEEN


def lost_in(lost: Mapping[str, int]) -> dict[str, int]:
    """Return what a capture lost by itself, without what the self-test finds on this kernel."""
    return {reason: number for reason, number in lost.items() if reason != KINDS_NOT_SEEN}
