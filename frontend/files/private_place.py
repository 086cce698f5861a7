"""Where temporary files may lie: where no stranger can put something else in their place."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def private_place() -> str:
    """Return the directory for temporary files: that of TMPDIR, unless a stranger could swap it.

    sudo may hand on TMPDIR. Where no directory is safe, the whole machine is not, and it is
    TMPDIR's after all.
    """
    asked = tempfile.gettempdir()
    return next((one for one in (asked, "/tmp", "/var/tmp") if _is_safe(one)), asked)  # noqa: S108


def _is_safe(name: str) -> bool:
    """Whether only root and this user can rename it, or what they make in it."""
    path = Path(os.path.realpath(name))
    for one in (path, *path.parents):
        try:
            status = one.stat()
        except OSError:
            return False
        shared = (
            status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        )
        if shared or status.st_uid not in (0, os.geteuid()):
            return False
    return True
