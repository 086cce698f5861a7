"""Sizes as kernel people write them: kB is 1024 bytes, as in /proc/meminfo, and so upwards."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def size(size_bytes: int, *, exact: bool = False) -> str:
    """``size_bytes`` for a person: "384 B", "3.8 kB", "120 kB"; with ``exact`` always in bytes.

    One decimal below 100 of a unit, none from there on.
    """
    if exact or abs(size_bytes) < 1024:
        return f"{size_bytes} B"
    value = size_bytes / 1024
    for unit in _UNITS[:-1]:
        # 1023.5 kB would print as 1024 kB.
        if abs(value) < 1023.5:
            return _scaled(value, unit)
        value /= 1024
    return _scaled(value, _UNITS[-1])


def _scaled(value: float, unit: str) -> str:
    return f"{value:.1f} {unit}" if abs(value) < 99.95 else f"{value:.0f} {unit}"
