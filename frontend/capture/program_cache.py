"""Compiled programs kept from one run to the next.

Compiling takes seconds, in an emulated machine ten and more. What is kept is loaded into the
kernel by root: so only a directory and files that belong to the user who runs kleak, and that
nobody else may write or even read, are believed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kleak.capture.program_image import ProgramImage

KEPT = 32
_SUFFIX = ".programs"


def cache_directory() -> Path:
    """Return where compiled programs are kept, existing or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "kleak" / "programs"


def cached_image(key: str, compile_image: Callable[[], ProgramImage]) -> tuple[ProgramImage, bool]:
    """Return what ``compile_image`` made before under ``key``, else what it makes now.

    The second value tells whether it was kept. A cache that cannot be used is done without.
    """
    directory = _open_directory()
    if directory is None:
        return compile_image(), False
    try:
        image = _read(directory, key + _SUFFIX)
        if image is not None:
            return image, True
        image = compile_image()
        with suppress(OSError):
            _write(directory, key + _SUFFIX, image)
            _drop_oldest(directory)
        return image, False
    finally:
        os.close(directory)


def _open_directory() -> int | None:
    path = cache_directory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if _is_private(directory):
        return directory
    os.close(directory)
    return None


def _is_private(fd: int) -> bool:
    status = os.fstat(fd)
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


def _read(directory: int, name: str) -> ProgramImage | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not _is_private(fd):
            return None
        try:
            image = ProgramImage.from_bytes(file.read())
        except (OSError, ValueError):
            return None
        os.utime(fd)  # the oldest goes first
        return image


def _write(directory: int, name: str, image: ProgramImage) -> None:
    scratch = f"{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(scratch, flags, 0o600, dir_fd=directory)
    try:
        with open(fd, "wb") as file:
            file.write(image.to_bytes())
        os.rename(scratch, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(scratch, dir_fd=directory)
        raise


def _drop_oldest(directory: int) -> None:
    ages = []
    for name in os.listdir(directory):
        with suppress(FileNotFoundError):
            ages.append((os.stat(name, dir_fd=directory).st_mtime_ns, name))
    for _, name in sorted(ages)[:-KEPT]:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
