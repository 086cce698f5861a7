"""Whose the files are that kleak makes under sudo: the user's who called it, not root's.

Only files that this process has just made are given away, and only through a descriptor, so that
nobody who can write to the directory can have another file given to them. Where the file system
refuses (a share that maps root away), the file stays root's: it matters more than its owner.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def caller() -> tuple[int, int] | None:
    """Return the user and group numbers of who called sudo; None if this is no such process."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdecimal() and group.isdecimal():
        return int(user), int(group)
    return None


def give_to_caller(fd: int) -> None:
    """Give the file that this process created and has open as ``fd`` to the caller of sudo."""
    owner = caller()
    if owner is not None:
        with suppress(OSError):
            os.fchown(fd, *owner)


def make_directory(path: Path) -> None:
    """Make the directory ``path`` and those above it that are missing, for the caller of sudo.

    Raises OSError where one cannot be made.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        fd = os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if _is_own(fd) and not os.listdir(fd):
                give_to_caller(fd)
        finally:
            os.close(fd)


def give_directory_to_caller(path: Path) -> None:
    """Give ``path``, a directory of this process that nobody else can write to, and the files
    in it, to the caller of sudo.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if not _is_own(fd) or os.fstat(fd).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return  # somebody has put another one in its place
        for name in os.listdir(fd):
            try:
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
            except OSError:  # a link, or a file that went away: none of this process's
                continue
            try:
                status = os.fstat(file)
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    give_to_caller(file)
            finally:
                os.close(file)
        give_to_caller(fd)
    finally:
        os.close(fd)


def _is_own(fd: int) -> bool:
    return os.fstat(fd).st_uid == os.geteuid()
