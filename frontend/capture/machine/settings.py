"""Settings of the machine that are changed for a moment, and put back on every way out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kleak.errors import UnsupportedError
from kleak.files.guard import held_text
from kleak.model.session import Setting

KPTR_RESTRICT = Path("/proc/sys/kernel/kptr_restrict")


_changes: dict[str, Setting] = {}


def require_root() -> None:
    """Raise UnsupportedError for anybody else, before anything is begun."""
    if os.geteuid() != 0:
        raise UnsupportedError("tracing the kernel needs root: run it under sudo")


@contextmanager
def held_setting(path: Path, during: str, after: str) -> Iterator[None]:
    """Write ``during`` to a file within the context, and ``after`` at its end.

    So it is put back on every way out. Raises OSError if the file refuses.
    """
    guard = None
    try:
        with held_text(path, during, after) as guard:
            _changes[str(path)] = Setting(str(path), after, during, restored=False)
            yield
    finally:
        if guard is not None:
            _changes[str(path)] = Setting(str(path), after, during, guard.put_back)


def setting_changes() -> tuple[Setting, ...]:
    """Return the settings that this process changed, each once, the first changed first."""
    return tuple(_changes.values())


@contextmanager
def real_addresses(*shown_too: str) -> Iterator[None]:
    """Let root read real addresses: /proc/vmallocinfo prints them hashed unless it is 1.

    ``shown_too``: other values of the setting with which what is read shows them.
    """
    before = KPTR_RESTRICT.read_text().strip()
    if before in ("1", *shown_too):
        yield
        return
    with held_setting(KPTR_RESTRICT, "1", before):
        yield
