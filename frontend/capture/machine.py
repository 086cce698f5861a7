"""Settings of the machine that are changed for a moment, and put back on every way out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kleak.errors import UnsupportedError
from kleak.model import Setting

KPTR_RESTRICT = Path("/proc/sys/kernel/kptr_restrict")


_changes: dict[str, Setting] = {}


def require_root() -> None:
    """Raise UnsupportedError for anybody else, before anything is begun."""
    if os.geteuid() != 0:
        raise UnsupportedError("tracing the kernel needs root: run it under sudo")


@contextmanager
def setting(path: Path, value: str) -> Iterator[None]:
    """Give a sysctl or sysfs file ``value`` within the context. Raises OSError if refused."""
    before = path.read_text()
    if before.strip() == value:
        yield
        return
    path.write_text(value)
    _changes[str(path)] = Setting(str(path), before.strip(), value, restored=False)
    try:
        yield
    finally:
        path.write_text(before)
        _changes[str(path)] = Setting(str(path), before.strip(), value, restored=True)


def setting_changes() -> tuple[Setting, ...]:
    """Return the settings that this process changed, each once, the first changed first."""
    return tuple(_changes.values())


@contextmanager
def real_addresses() -> Iterator[None]:
    """Let root read real addresses: /proc/vmallocinfo prints them hashed unless it is 1."""
    with setting(KPTR_RESTRICT, "1"):
        yield
