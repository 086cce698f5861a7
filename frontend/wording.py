"""Numbers with their nouns, frames and places, as every part of kleak words them."""

from __future__ import annotations

from collections.abc import Mapping

from kleak.model.session import Frame, Tally
from kleak.units import size


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """A number and its noun: "1 object", "3 objects". ``nouns`` where it is not noun + "s"."""
    return f"{count} {noun if abs(count) == 1 else nouns or f'{noun}s'}"


def either(count: int, one: str, more: str) -> str:
    """The word that agrees with a number: "is" or "are"."""
    return one if abs(count) == 1 else more


def objects(tally: Tally, *, exact: bool = False) -> str:
    """What is held: "3 objects, 384 B"; ``exact`` as in :func:`kleak.units.size`."""
    return f"{plural(tally.count, 'object')}, {size(tally.size_bytes, exact=exact)}"


def counted(numbers: Mapping[str, int]) -> list[str]:
    """What was lost, or made good: ``{"frees_missed": 2}`` as ["2 frees missed"]."""
    return [f"{count} {what.replace('_', ' ')}" for what, count in sorted(numbers.items()) if count]


def frame_text(frame: Frame) -> str:
    """A frame as kernel people write it: ``symbol+0x1c [module] file.c:12``."""
    if frame.symbol is not None:
        text = f"{frame.symbol}+{frame.offset:#x}"
    elif frame.module is not None:
        text = f".text+{frame.offset:#x}"
    else:
        text = f"{frame.offset:#x}"
    if frame.module is not None:
        text += f" [{frame.module}]"
    if frame.source is not None:
        text += f" {frame.source.file}:{frame.source.line}"
    return text
