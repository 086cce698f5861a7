"""Compiles for a guest what it orders: here that takes seconds, in an emulated guest a minute.

The guest's root may leave anything in the directory that both share. So it is held open, and what
is in it is opened by names of one form, never through links, and read up to a limit.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kleak.errors import KleakError
from kleak.files.input_files import open_input, read_at_most
from kleak.vm.inner import inner_command

_ORDER = re.compile(r"([0-9a-f]{64})\.order")
_MOST_BYTES = 1 << 16
_MOST_NAMES = 1000
_MOST_ORDERS = 100
"""Of one guest. A capture orders once, unless it has done so before."""
_COMPILER_LIMIT_S = 60
_POLL_S = 0.1


@contextmanager
def programs_for(directory: Path) -> Iterator[None]:
    """Within the context, answer the orders that are left in ``directory``, one after the other."""
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    ended = threading.Event()
    thread = threading.Thread(target=_answer_all, args=(place, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        os.close(place)


def _answer_all(place: int, ended: threading.Event) -> None:
    taken: set[str] = set()
    while not ended.wait(_POLL_S):
        for key in _ordered(place) - taken:
            if len(taken) < _MOST_ORDERS and not ended.is_set():
                taken.add(key)
                _answer(place, key)


def _ordered(place: int) -> set[str]:
    names: set[str] = set()
    with os.scandir(place) as entries:
        for entry, _ in zip(entries, range(_MOST_NAMES), strict=False):
            names.add(entry.name)
    return {found.group(1) for name in names if (found := _ORDER.fullmatch(name))}


def _answer(place: int, key: str) -> None:
    programs = None
    with suppress(OSError, KleakError):
        with open_input(f"{key}.order", links=False, dir_fd=place) as file:
            order = read_at_most(file, _MOST_BYTES)
        programs = None if order is None else _compile(order)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    answer = f"{key}.{'failed' if programs is None else 'programs'}"
    with suppress(OSError):  # the guest has put something in its place, and gets no answer
        with open(os.open(f".{answer}", flags, 0o600, dir_fd=place), "wb") as file:
            file.write(programs or b"")
        os.rename(f".{answer}", answer, src_dir_fd=place, dst_dir_fd=place)


def _compile(order: bytes) -> bytes | None:
    """Return the programs; None where this machine or this user cannot compile them."""
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            inner_command(["image", "build", "/dev/stdin", "-o", "/dev/stdout"]),
            input=order,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_COMPILER_LIMIT_S,
            check=False,
        )
        return done.stdout if done.returncode == 0 else None
    return None
