"""Whose the files are that kleak makes under sudo: the user's who called it, not root's.

Only what this process has just made is given away, and only through a descriptor, so that nobody
who can write to the directory can have another file given to them. Where the file system refuses
(a share that maps root away), the file stays root's: it matters more than its owner.
"""

from __future__ import annotations

import os
from contextlib import suppress


def caller() -> tuple[int, int] | None:
    """Return the user and group numbers of who called sudo; None if this is no such process."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdecimal() and group.isdecimal():
        return int(user), int(group)
    return None


def is_trusted(user: int) -> bool:
    """Whether what belongs to ``user`` may decide where files go: root, this user, and the caller
    of sudo, who may have anything done.
    """
    return user in (0, os.geteuid(), *(caller() or ())[:1])


def give_to_caller(fd: int) -> None:
    """Give the file that this process created and has open as ``fd`` to the caller of sudo."""
    owner = caller()
    if owner is not None:
        with suppress(OSError):
            os.fchown(fd, *owner)
