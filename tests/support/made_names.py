"""Names that a test makes up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kleak.model.session import Frame


@dataclass
class MadeNames:
    """What addresses are called, by a function. ``eras``: whether cycles differ at all."""

    frame_of: Callable[[int, int], Frame]
    eras: bool = True

    def resolve(self, address: int, epoch: int) -> Frame:
        return self.frame_of(address, epoch)

    def era(self, epoch: int) -> int:
        return epoch if self.eras else 1
