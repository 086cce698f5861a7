"""Names that code of the kernel registers and has to take back: in procfs, debugfs, slab; devices.

Read before the first cycle and after the last: what is new then was left behind. Only names; no
file is opened, since reading one runs its driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

DEVICES = "/sys/devices"
# Where drivers put their names, and how deep. Of /proc not the processes, nor what is not a
# driver's: sysctls, interrupts, links into a process's directory (/proc/net is one of these).
_PLACES: tuple[tuple[str, int], ...] = (
    ("/proc", 2),
    ("/proc/net", 1),
    ("/sys/kernel/debug", 1),
    ("/sys/kernel/slab", 1),
    (DEVICES, 3),
)
_LEFT_OUT = frozenset({"self", "thread-self", "net", "mounts", "sys", "irq"})
MOST_NAMES = 20_000


def list_names(root: Path = Path("/")) -> str | None:
    """Return the paths, sorted, one a line; None where there are none, or too many to keep."""
    found: list[str] = []
    for place, depth in _PLACES:
        place_here = root / place.lstrip("/")
        for path in _walk(place_here, depth, below_devices=place == DEVICES):
            if len(found) == MOST_NAMES:
                return None
            found.append("/" + os.path.relpath(path, root))
    return "".join(f"{path}\n" for path in sorted(found)) or None


def _walk(directory: Path, depth: int, *, below_devices: bool) -> Iterator[str]:
    try:
        entries = list(os.scandir(directory))
    except OSError:  # not mounted, not in this kernel, or gone again
        return
    for entry in entries:
        if _is_left_out(directory, entry.name, below_devices=below_devices):
            continue
        # The name of a cache that was merged stays when the cache goes (sysfs_slab_alias() of
        # mm/slub.c takes it for the next one).
        if entry.is_symlink() and directory.name == "slab":
            continue
        # What is below a device is a device, or an attribute of one.
        if not below_devices or _is_directory(entry):
            yield entry.path
        if depth > 1 and _is_directory(entry):
            yield from _walk(Path(entry.path), depth - 1, below_devices=below_devices)


def _is_left_out(directory: Path, name: str, *, below_devices: bool) -> bool:
    if below_devices:  # "system" has a directory for each CPU and each block of memory
        return name == "system" and directory.name == "devices"
    return name.isdigit() or name in _LEFT_OUT


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # gone again
        return False
