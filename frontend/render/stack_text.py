"""Frames as text, shared by the formats: as the kernel prints them, and as tools want them."""

from __future__ import annotations

from kleak.model.report import JudgedSite
from kleak.model.session import Frame
from kleak.render.escape import printable


def function(frame: Frame) -> str:
    """The function of a frame, with its module: ``leak_it [leaky]``; an offset if it has none."""
    if frame.symbol is not None:
        name = frame.symbol
    else:
        name = f"{frame.offset:#x}" if frame.module is None else f".text+{frame.offset:#x}"
    return printable(name if frame.module is None else f"{name} [{frame.module}]")


def whole_stack(site: JudgedSite) -> tuple[Frame, ...]:
    """All frames of a site, the allocator's own first: innermost first."""
    return (*site.allocator_frames, *site.frames)
