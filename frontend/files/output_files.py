"""The files that commands write: what a name stands for, and how a file comes to lie there.

A regular file is replaced as a whole by a rename: who reads it has the old one or the new one, and
what fails leaves the old one. Links are followed, what they lead to is replaced. Anything else (a
device, a FIFO, a descriptor such as /dev/stdout) is written to, and stays what it is.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kleak.errors import KleakError, UnsupportedError, UsageError
from kleak.files.ownership import caller, give_to_caller

_MACHINES_FAULT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})
_MOST_LINKS = 40  # MAXSYMLINKS of include/linux/namei.h


@dataclass(frozen=True, slots=True)
class Place:
    """Where an output goes. ``path`` is the name with links followed, ``there`` what lies there
    now, ``descriptor`` that of this process which the name stands for.
    """

    name: str
    path: Path
    there: os.stat_result | None
    descriptor: int | None = None

    @property
    def is_file(self) -> bool:
        """Whether a regular file lies there, or one would."""
        return self.descriptor is None and (self.there is None or stat.S_ISREG(self.there.st_mode))


def failure(name: str, error: OSError) -> KleakError:
    """Return the line, and the status, for an output that could not be written."""
    kind = UnsupportedError if error.errno in _MACHINES_FAULT else UsageError
    return kind(f"{name}: {error.strerror or error}")


def find_place(name: str) -> Place:
    """Return what ``name`` stands for. Raises UsageError where that cannot be told."""
    try:
        descriptor = _own_descriptor(name)
        if descriptor is not None:
            return Place(name, Path(name), os.fstat(descriptor), descriptor)
        try:
            # The kernel is asked first: it may forbid to follow a link (fs.protected_symlinks).
            there = os.stat(name or ".")
        except FileNotFoundError:
            there = None
        return Place(name, Path(os.path.realpath(name)), there)
    except OSError as error:
        raise failure(name, error) from error


def check_place(name: str) -> Place:
    """Return what ``name`` stands for. Raises KleakError if nothing could be written there.

    Before the work begins, so that a path which cannot be written costs nothing but a line.
    """
    place = find_place(name)
    if place.there is not None and stat.S_ISDIR(place.there.st_mode):
        raise UsageError(f"{name or '.'} is a directory")
    if place.there is not None and stat.S_ISSOCK(place.there.st_mode) and place.descriptor is None:
        raise UsageError(f"{name} is a socket")
    if place.descriptor is None and place.there is not None and not os.access(name, os.W_OK):
        raise UsageError(f"{name}: Permission denied")
    if place.is_file:
        if not place.path.parent.is_dir():
            raise UsageError(f"{name}: no directory {place.path.parent} to write to")
        try:
            fd, probe = _make_beside(place)
            os.close(fd)
            probe.unlink()
        except OSError as error:
            raise failure(name, error) from error
    return place


def write_file(name: str, data: bytes) -> None:
    """Write an output: replace a regular file, write to anything else.

    Raises KleakError where that fails; a file that was there is as before then.
    """
    place = find_place(name)
    try:
        if place.is_file:
            _replace(place, data)
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
        with suppress(UsageError):  # no file, such as a net plan in words, or told by who reads it
            place = find_place(one)
            if place.there is not None:
                read.add(_identity(place))
    written: dict[object, str] = {}
    for option, name in outputs.items():
        if name is None or name == "-" or not (place := find_place(name)).is_file:
            continue
        identity = _identity(place)
        if identity in read:
            raise UsageError(f"{option} {name} would replace what is read: give another file")
        if identity in written:
            raise UsageError(
                f"{written[identity]} and {option} {name} are one file: give each its own"
            )
        written[identity] = f"{option} {name}"


def take_over(fd: int, place: Place, *, keeps_mode: bool = True) -> None:
    """Give a new file (0600) the owner and mode of the file that it replaces.

    Where it replaces none, it is for its owner alone: addresses and names are in it. Under sudo
    that is the user who called it.
    """
    old = place.there
    if old is None or _is_strangers(place):
        give_to_caller(fd)
        return
    try:
        os.fchown(fd, old.st_uid, old.st_gid)
    except OSError:
        return  # nor its mode then: the group would be another
    if keeps_mode:
        os.fchmod(fd, old.st_mode & 0o777)


def _is_strangers(place: Place) -> bool:
    """Whether somebody else may have put the file there, to have what is written: in /tmp."""
    assert place.there is not None
    parent = place.path.parent.stat()
    trusted = {os.geteuid(), parent.st_uid, *(caller() or ())[:1]}
    return bool(parent.st_mode & stat.S_ISVTX) and place.there.st_uid not in trusted


def _own_descriptor(name: str) -> int | None:
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
    return place.path if place.there is None else (place.there.st_dev, place.there.st_ino)


def _make_beside(place: Place) -> tuple[int, Path]:
    fd, name = tempfile.mkstemp(prefix=".kleak-", dir=place.path.parent)
    return fd, Path(name)


def _replace(place: Place, data: bytes) -> None:
    fd, unfinished = _make_beside(place)
    try:
        with open(fd, "wb") as file:
            take_over(fd, place)
            file.write(data)
        unfinished.replace(place.path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _write_to(place: Place, data: bytes) -> None:
    if place.descriptor is None:
        fd = os.open(place.name, os.O_WRONLY | os.O_NOCTTY)
    else:
        # Opened anew, a file behind it would be written from its beginning; a socket not at all.
        sys.stdout.flush()
        fd = os.dup(place.descriptor)
    with open(fd, "wb") as file:
        file.write(data)
