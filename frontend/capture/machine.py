"""Settings of the machine that are changed for a moment, and put back on every way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KPTR_RESTRICT = Path("/proc/sys/kernel/kptr_restrict")


@contextmanager
def setting(path: Path, value: str) -> Iterator[None]:
    """Give a sysctl or sysfs file ``value`` within the context. Raises OSError if refused."""
    before = path.read_text()
    if before.strip() == value:
        yield
        return
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


@contextmanager
def real_addresses() -> Iterator[None]:
    """Let root read real addresses: /proc/vmallocinfo prints them hashed unless it is 1."""
    with setting(KPTR_RESTRICT, "1"):
        yield
