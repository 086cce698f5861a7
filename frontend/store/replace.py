"""Where a session file comes to lie, and that one kleak at a time writes it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
from contextlib import closing, suppress
from pathlib import Path

from kleak.errors import UsageError
from kleak.files.output_files import Place, take_over

_HELD_BYTE = 0x7FFFFFFF
"""Of the file, which is locked while it is written. SQLite locks those from 0x40000000 on."""


class SessionPlace:
    """A new session at a place. Where an older one lies, the new one begins beside it, and settle()
    puts it there; else it begins where it belongs.
    """

    def __init__(self, place: Place, *, new: bool) -> None:
        """Make the file, for its owner alone. ``new``: there must be none yet.

        Raises UsageError where another kleak is at it, OSError where it cannot be made,
        FileExistsError only where it was to be new.
        """
        self._place = place
        self._held: list[int] = []
        self.file = place.path
        self.replaces = False
        try:
            try:
                self._make()
            except FileExistsError:
                if new:
                    raise
                self._begin_beside()
        except BaseException:
            self.close()
            raise

    def settle(self) -> None:
        """Put the session, which nobody has open, where it belongs."""
        _journal(self._place.path).unlink(missing_ok=True)
        self.file.replace(self._place.path)
        self.file = self._place.path
        self.replaces = False

    def sync(self) -> None:
        """Have it on disk that the file is there."""
        directory = os.open(self.file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """Remove the session; not an older one."""
        for path in (_journal(self.file), self.file):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others write there. An older session stays if nothing took its place."""
        if self.file != self._place.path:
            self.discard()
        for fd in self._held:
            os.close(fd)
        self._held.clear()

    def _make(self) -> None:
        fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._hold(fd)
        take_over(fd, self._place, keeps_mode=False)
        _journal(self.file).unlink(missing_ok=True)

    def _begin_beside(self) -> None:
        fd = os.open(self.file, os.O_RDWR)
        self._hold(fd)
        if not os.path.samestat(os.fstat(fd), self.file.stat()):
            raise self._in_use()  # until just now: another one has taken its place
        _restore(self.file)
        self.replaces = True
        self.file = self.file.with_name(f".{self.file.name}.new")
        self.discard()  # what a kleak that was killed has left
        self._make()

    def _hold(self, fd: int) -> None:
        self._held.append(fd)
        # Of the open file, not of the process, whose locks go when SQLite closes the file.
        lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _HELD_BYTE, 1, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
        except (BlockingIOError, PermissionError) as error:
            raise self._in_use() from error
        except OSError:
            pass  # a file system without locks

    def _in_use(self) -> UsageError:
        return UsageError(f"{self._place.name} is in use by another kleak: -o names another place")


def _restore(path: Path) -> None:
    """Undo what a writer that was killed left half done: its journal cannot stay for the new."""
    if _journal(path).exists():
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as database:
            database.execute("SELECT count(*) FROM sqlite_master")


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")
