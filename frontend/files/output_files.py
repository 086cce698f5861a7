"""The files that commands write: what a name stands for, and how a file comes to lie there.

A regular file is replaced as a whole by a rename: who reads it has the old one or the new one, and
what fails leaves the old one. Anything else (a device, a FIFO, a descriptor such as /dev/stdout)
is written to, and stays what it is.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kleak.errors import KleakError, UnsupportedError, UsageError
from kleak.files.lookup import looked_up
from kleak.files.ownership import give_to_caller, is_trusted

_MACHINES_FAULT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})
_MOST_LINKS = 40  # MAXSYMLINKS of include/linux/namei.h


@dataclass(frozen=True, slots=True)
class Place:
    """Where an output goes: the name ``base`` in the directory that is open as ``directory``.

    ``there`` is what lies there now. Or it is ``descriptor``, one of this process.
    """

    name: str
    directory: int
    base: str
    there: os.stat_result | None
    descriptor: int | None = None

    @property
    def is_file(self) -> bool:
        """Whether a regular file lies there, or one would."""
        return self.descriptor is None and (self.there is None or stat.S_ISREG(self.there.st_mode))

    @property
    def path(self) -> Path:
        """Its path without links, as it is now: to be shown, not to be opened."""
        return Path(os.readlink(f"/proc/self/fd/{self.directory}")) / self.base

    def make(self) -> tuple[int, str]:
        """Make a file beside it, for its owner alone; return its descriptor and name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        name = f".kleak-{secrets.token_hex(8)}"
        return os.open(name, flags, 0o600, dir_fd=self.directory), name

    def create(self, data: Iterable[bytes]) -> None:
        """Make the file that is to lie there. Raises FileExistsError where there is one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.base, flags, 0o600, dir_fd=self.directory)
        try:
            with open(fd, "wb") as file:
                give_to_caller(fd)
                file.writelines(data)
                file.flush()
                os.fsync(fd)
        except BaseException:
            self.remove(self.base)
            raise
        self.sync()

    def remove(self, name: str) -> None:
        """Remove the file ``name`` of the same directory, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.directory)

    def replace(
        self, data: Iterable[bytes], *, keeps_mode: bool = True, durably: bool = False
    ) -> None:
        """Put a file with ``data`` there, whole or not at all. Raises OSError where it cannot.

        ``durably``: it is on disk when this returns.
        """
        fd, unfinished = self.make()
        try:
            with open(fd, "wb") as file:
                self.take_over(fd, keeps_mode=keeps_mode)
                file.writelines(data)
                if durably:
                    file.flush()
                    os.fsync(fd)
            directory = self.directory
            os.rename(unfinished, self.base, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            self.remove(unfinished)
            raise
        if durably:
            self.sync()

    def sync(self) -> None:
        """Have it on disk that the file is there."""
        with suppress(PermissionError):  # one that may be written to, and not be read
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.directory)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def take_over(self, fd: int, *, keeps_mode: bool = True) -> None:
        """Give a new file (0600) the owner and mode of the file that it replaces.

        Where it replaces none, it is for its owner alone: addresses and names are in it. Under
        sudo that is the user who called it.
        """
        old = self.there
        if old is None or self.is_strangers:
            give_to_caller(fd)
            return
        try:
            os.fchown(fd, old.st_uid, old.st_gid)
        except OSError:
            return  # nor its mode then: the group would be another
        if keeps_mode:
            os.fchmod(fd, old.st_mode & 0o777)

    @property
    def is_strangers(self) -> bool:
        """Whether somebody else may have put there what is there, to have what is written."""
        if self.there is None or self.descriptor is not None:
            return False
        parent = os.fstat(self.directory)
        shared = parent.st_mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISVTX)
        return (
            bool(shared)
            and self.there.st_uid != parent.st_uid
            and (not is_trusted(self.there.st_uid))
        )


def failure(name: str, error: OSError) -> KleakError:
    """Return the line, and the status, for an output that could not be written."""
    kind = UnsupportedError if error.errno in _MACHINES_FAULT else UsageError
    return kind(f"{name}: {error.strerror or error}")


@contextmanager
def found_place(name: str) -> Iterator[Place]:
    """Yield what ``name`` stands for. Raises UsageError where that cannot be told."""
    with ExitStack() as held:
        try:
            place = _find(name, held)
        except FileNotFoundError as error:
            parent = os.path.dirname(os.path.abspath(name))
            raise UsageError(f"{name}: no directory {parent} to write to") from error
        except OSError as error:
            raise failure(name, error) from error
        yield place


def _find(name: str, held: ExitStack) -> Place:
    descriptor = own_descriptor(name)
    if descriptor is not None:
        return Place(name, -1, name, os.fstat(descriptor), descriptor)
    directory, base = held.enter_context(looked_up(name))
    try:
        there = os.stat(base, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        there = None
    return Place(name, directory, base, there)


@contextmanager
def checked_place(name: str) -> Iterator[Place]:
    """Yield what ``name`` stands for. Raises KleakError if nothing could be written there.

    Before the work begins, so that a path which cannot be written costs nothing but a line.
    """
    with found_place(name) as place:
        there = place.there
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise UsageError(f"{name or '.'} is a directory")
        if there is not None and stat.S_ISSOCK(there.st_mode) and place.descriptor is None:
            raise UsageError(f"{name} is a socket")
        if not place.is_file and place.is_strangers:
            raise UsageError(f"{name} belongs to another user, who would read what is written")
        if not (
            place.descriptor is not None
            or there is None
            or os.access(place.base, os.W_OK, dir_fd=place.directory)
        ):
            raise UsageError(f"{name}: Permission denied")
        if place.is_file:
            try:
                fd, probe = place.make()
                os.close(fd)
                place.remove(probe)
            except OSError as error:
                raise failure(name, error) from error
        yield place


def check_place(name: str) -> None:
    """Raise KleakError if nothing could be written at ``name``."""
    with checked_place(name):
        pass


def write_file(name: str, data: bytes) -> None:
    """Write an output: replace a regular file, write to anything else.

    Raises KleakError where that fails; a file that was there is as before then.
    """
    with found_place(name) as place:
        try:
            if place.is_file:
                place.replace([data])
            else:
                _write_to(place, data)
        except OSError as error:
            raise failure(name, error) from error


def write_files(documents: Iterable[tuple[str, str]]) -> KleakError | None:
    """Write all of these (name, text), whatever becomes of the others.

    Returns what went wrong, and does not raise it: what else there is to say can be said first.
    """
    failures = []
    for name, text in documents:
        try:
            write_file(name, text.encode())
        except KleakError as error:
            failures.append(error)
    if len(failures) < 2:
        return failures[0] if failures else None
    return type(failures[0])("; ".join(map(str, failures)))


def refuse_clashes(outputs: Mapping[str, str | None], inputs: Iterable[str]) -> None:
    """Raise UsageError if two outputs, by option, are one file, or one is also read."""
    read = set()
    for one in inputs:
        # Not what is no file, such as a net plan in words: who reads it tells of it.
        with suppress(OSError, ValueError):
            there = os.stat(one)
            read.add((there.st_dev, there.st_ino))
    written: dict[object, str] = {}
    for option, name in outputs.items():
        if name is None or name == "-":
            continue
        with found_place(name) as place:
            if not place.is_file:
                continue
            identity = _identity(place)
        if identity in read:
            raise UsageError(f"{option} {name} would replace what is read: give another file")
        if identity in written:
            raise UsageError(
                f"{written[identity]} and {option} {name} are one file: give each its own"
            )
        written[identity] = f"{option} {name}"


def own_descriptor(name: str) -> int | None:
    """Return the descriptor that a name such as /dev/stdout or /dev/fd/63 stands for."""
    for _ in range(_MOST_LINKS):
        parent = os.path.realpath(os.path.dirname(name))
        last = os.path.basename(name)
        if parent == f"/proc/{os.getpid()}/fd" and last.isdecimal():
            return int(last)
        if not os.path.islink(name):
            return None
        name = os.path.join(parent, os.readlink(name))
    return None


def _identity(place: Place) -> object:
    """What is equal for two names of one file."""
    if place.there is not None:
        return place.there.st_dev, place.there.st_ino
    directory = os.fstat(place.directory)
    return directory.st_dev, directory.st_ino, place.base


def _write_to(place: Place, data: bytes) -> None:
    if place.descriptor is None:
        flags = os.O_WRONLY | os.O_NOCTTY | os.O_NOFOLLOW
        fd = os.open(place.base, flags, dir_fd=place.directory)
    else:
        # Opened anew, a file behind it would be written from its beginning; a socket not at all.
        sys.stdout.flush()
        fd = os.dup(place.descriptor)
    with open(fd, "wb") as file:
        if place.there is None or not os.path.samestat(os.fstat(fd), place.there):
            raise OSError(errno.EEXIST, "something else has taken its place")
        file.write(data)
