"""What a name leads to, looked up once: a directory that is held open, and a name in it.

Others may own a directory on the way, or write to it. Whoever looks a name up twice may find two
things. A link that a stranger owns is not followed at all, where the kernel follows it outside of
sticky directories (fs.protected_symlinks): it would choose what root replaces.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kleak.errors import UsageError
from kleak.files.ownership import give_to_caller, is_trusted

_MOST_LINKS = 40  # MAXSYMLINKS of include/linux/namei.h
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def looked_up(name: str) -> Iterator[tuple[int, str]]:
    """Yield the directory (an O_PATH descriptor) and the name in it that ``name`` leads to.

    There may be nothing of that name yet. A directory is "." in itself. Raises OSError where the
    way there is missing or may not be gone, UsageError for a link that a stranger owns.
    """
    walk = _Walk(name)
    try:
        last = walk.to_the_last()
        yield walk.at, last
    finally:
        os.close(walk.at)


@contextmanager
def opened_directory(name: str, *, make: bool = False) -> Iterator[int]:
    """Yield a descriptor (O_PATH) of the directory ``name``.

    ``make``: those that are missing are made, for the caller of sudo. Raises as looked_up() does.
    """
    walk = _Walk(os.path.join(name, "."), make=make)
    try:
        walk.to_the_last()
        yield walk.at
    finally:
        os.close(walk.at)


class _Walk:
    """One way from directory to directory. ``at`` is the one reached, to be closed."""

    def __init__(self, name: str, *, make: bool = False) -> None:
        self.at = os.open("/" if name.startswith("/") else ".", _LOOK | os.O_DIRECTORY)
        self._name = name
        self._make = make
        self._links = 0
        self._left = _parts(name)

    def to_the_last(self) -> str:
        """Go on until one name is left that is no directory and no link; return it."""
        while self._left:
            part = self._left.pop(0)
            try:
                self._enter(part)
            except FileNotFoundError:
                if self._left and self._make:
                    self._make_directory(part)
                elif self._left:
                    raise
                else:
                    return part
            except NotADirectoryError:
                if not self._follow(part):
                    if self._left:
                        raise
                    return part
        return "."

    def _enter(self, part: str) -> None:
        fd = os.open(part, _LOOK | os.O_DIRECTORY, dir_fd=self.at)
        os.close(self.at)
        self.at = fd

    def _make_directory(self, part: str) -> None:
        with suppress(FileExistsError):  # another one made it meanwhile
            os.mkdir(part, dir_fd=self.at)
        fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.at)
        try:
            if os.fstat(fd).st_uid == os.geteuid() and not os.listdir(fd):
                give_to_caller(fd)
        finally:
            os.close(fd)
        self._left.insert(0, part)

    def _follow(self, part: str) -> bool:
        """Put what the link ``part`` says in its place. Returns whether it is a link."""
        fd = os.open(part, _LOOK, dir_fd=self.at)
        try:
            status = os.fstat(fd)
            if not stat.S_ISLNK(status.st_mode):
                return False
            if not is_trusted(status.st_uid):
                raise UsageError(
                    f"{self._name}: the link {part} on the way belongs to another user"
                )
            self._links += 1
            if self._links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
        if target.startswith("/"):
            root = os.open("/", _LOOK | os.O_DIRECTORY)
            os.close(self.at)
            self.at = root
        self._left[:0] = _parts(target)
        return True


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part]
    return [*parts, "."] if name.endswith("/") else parts
