"""Files kept from one run to the next: what takes long to make, and is the same every time.

What is kept goes into the kernel, put there by root. So only a directory and files that belong to
the user who runs kleak, and that nobody else may write or even read, are believed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEPT = 32
_DIGEST_BYTES = 32


def directory() -> Path:
    """Return where files are kept, existing or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "kleak" / "programs"


def read_kept(name: str) -> bytes | None:
    """Return what was kept under ``name``; None if nothing was, or it cannot be believed."""
    with _opened() as place:
        return None if place is None else _read(place, name)


def keep(name: str, content: bytes) -> None:
    """Keep ``content`` under ``name``. Where nothing can be kept, it is done without."""
    with _opened() as place, suppress(OSError):
        if place is not None:
            _write(place, name, content)
            _drop_oldest(place)


@contextmanager
def _opened() -> Iterator[int | None]:
    """Open the directory; None if there is none to be trusted."""
    path = directory()
    if not _is_ours_to_make(path):
        yield None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield place if _is_private(place) else None
    finally:
        os.close(place)


def _is_ours_to_make(path: Path) -> bool:
    """Whether it is there, or would be made in a directory of this user: sudo may hand on the
    XDG_CACHE_HOME of its caller, who could not remove what root makes there.
    """
    above = next((one for one in (path, *path.parents) if one.exists()), None)
    return above is not None and above.stat().st_uid == os.geteuid()


def _is_private(fd: int) -> bool:
    status = os.fstat(fd)
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


def _read(place: int, name: str) -> bytes | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except OSError:
        return None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not _is_private(fd):
            return None
        try:
            stored = file.read()
        except OSError:
            return None
        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:  # damaged
            return None
        with suppress(OSError):  # of a file system that is read-only now
            os.utime(fd)  # the oldest goes first
        return content


def _write(place: int, name: str, content: bytes) -> None:
    scratch = f"{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(scratch, flags, 0o600, dir_fd=place)
    try:
        with open(fd, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.rename(scratch, name, src_dir_fd=place, dst_dir_fd=place)
    except OSError:
        os.unlink(scratch, dir_fd=place)
        raise


def _drop_oldest(place: int) -> None:
    ages = []
    for name in os.listdir(place):
        with suppress(FileNotFoundError):
            ages.append((os.stat(name, dir_fd=place).st_mtime_ns, name))
    for _, name in sorted(ages)[:-KEPT]:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=place)
