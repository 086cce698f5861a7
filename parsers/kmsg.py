"""Lines of the kernel log that witness a leak, out of dmesg, a syslog file or /dev/kmsg.

    [   32.168011] BUG objs (Tainted: G OE): Objects remaining in objs on __kmem_cache_shutdown()
    drivers/lk/lk.c:12 module lk func:lk_init has 4096 allocated at module unload
    [   43.752445] unregister_netdevice: waiting for dummy0 to become free. Usage count = 2
    kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)

All other lines are passed over; they are no damage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from kleak.parsers._lines import Source, iterate_lines, undress

_KMSG_PREFIX = re.compile(r"(\d+),\d+,(\d+),[^;]*;")
_SEVERITIES = 8
_SECONDS = re.compile(r"\[ *(\d+\.\d+)\]")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the log. ``time_seconds`` is since boot, None where not printed.

    ``severity`` is that of include/linux/kern_levels.h (4 is a warning, less is worse), None
    where not printed. ``line_number`` takes no part in equality.
    """

    text: str
    line_number: int = field(compare=False)
    time_seconds: float | None
    severity: int | None = None


@dataclass(frozen=True, slots=True)
class LeftAtUnload:
    """free_mod_tags_mem()/codetag of lib/alloc_tag.c: a module's call site still holds memory."""

    log: LogLine
    file: str
    source_line: int
    module: str
    function: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModuleStillAlive:
    """codetag_unload_module() in lib/codetag.c: allocations of the module outlive it (6.12)."""

    log: LogLine
    module: str


@dataclass(frozen=True, slots=True)
class ObjectsRemaining:
    """list_slab_objects() in mm/slub.c: a cache was destroyed with objects in it.

    ``object_addresses`` are those of the "Object 0x... @offset" lines that follow, as printed
    (hashed unless hashing of pointers is off); their number is the objects that were left in the
    slabs shown. ``object_offsets`` are theirs in their slabs, in bytes.
    """

    log: LogLine
    cache: str
    object_addresses: tuple[int, ...]
    object_offsets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheNotEmpty:
    """kmem_cache_destroy() in mm/slab_common.c: its summary of the same. ``caller`` as printed."""

    log: LogLine
    cache: str
    caller: str | None


@dataclass(frozen=True, slots=True)
class NetdeviceWaiting:
    """netdev_wait_allrefs_any() in net/core/dev.c: somebody did not drop a reference."""

    log: LogLine
    device: str
    usage_count: int


@dataclass(frozen=True, slots=True)
class NameTaken:
    """proc_register() in fs/proc/generic.c, debugfs_start_creating() in fs/debugfs/inode.c,
    sysfs_warn_dup() in fs/sysfs/dir.c, kmem_cache_sanity_check() in mm/slab_common.c: something
    of that name is there already. ``registry`` is "proc", "debugfs", "sysfs" or "slab".
    """

    log: LogLine
    registry: str
    name: str


@dataclass(frozen=True, slots=True)
class DirectoryNotEmpty:
    """remove_proc_entry() in fs/proc/generic.c: a directory went with ``left`` still in it."""

    log: LogLine
    directory: str
    left: str


@dataclass(frozen=True, slots=True)
class ReferenceMiscount:
    """refcount_warn_saturate() in lib/refcount.c, lib/kobject.c, or device_release() in
    drivers/base/core.c: references do not add up.
    """

    log: LogLine


@dataclass(frozen=True, slots=True)
class KmemleakSuspects:
    """kmemleak_scan() in mm/kmemleak.c: objects that the scan reported for the first time."""

    log: LogLine
    count: int


@dataclass(frozen=True, slots=True)
class KmemleakDisabled:
    """kmemleak stopped itself or was switched off; it sees nothing from here on."""

    log: LogLine


Witness: TypeAlias = (
    LeftAtUnload
    | ModuleStillAlive
    | ObjectsRemaining
    | CacheNotEmpty
    | NetdeviceWaiting
    | NameTaken
    | DirectoryNotEmpty
    | ReferenceMiscount
    | KmemleakSuspects
    | KmemleakDisabled
)

_OBJECT = re.compile(r"(?:INFO: )?Object 0x([0-9a-f]+) @offset=(\d+)")
_REMAINING = re.compile(
    # on kmem_cache_close() before v3.18 or so, "BUG foo_cache: Objects remaining" without taint
    # before v3.x; without a function in 2.6
    r"BUG (?P<cache>\S+?)(?: \(.*\))?: Objects remaining(?: in \S+)?"
    r"(?: on (?:__)?kmem_cache_(?:shutdown|close)\(\))?.*"
)


def _remaining(match: re.Match[str], log: LogLine) -> Witness:
    return ObjectsRemaining(log, match["cache"], ())


def _taken(registry: str) -> Callable[[re.Match[str], LogLine], Witness]:
    return lambda match, log: NameTaken(log, registry, match[1])


def _left(match: re.Match[str], log: LogLine) -> Witness:
    return LeftAtUnload(log, match[1], int(match[2]), match[3], match[4], int(match[5]))


_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], LogLine], Witness]], ...] = (
    (_REMAINING, _remaining),
    (
        re.compile(r"(\S+):(\d+) module (\S+) func:(\S+) has (\d+) allocated at module unload"),
        _left,
    ),
    (
        re.compile(r"(\S+): memory allocation\(s\) from the module still alive"),
        lambda match, log: ModuleStillAlive(log, match[1]),
    ),
    (
        re.compile(
            r"kmem_cache_destroy (\S+): Slab cache still has objects(?: when called from (\S.*))?"
        ),
        lambda match, log: CacheNotEmpty(log, match[1], match[2]),
    ),
    (
        # mm/slab.c, and SLUB's kmem_cache_destroy() before v3.x
        re.compile(
            r"(?:slab error in kmem_cache_destroy\(\): cache [`'](?P<slab>[^']+)': "
            r"Can't free all objects"
            r"|SLUB (?P<slub>\S+): kmem_cache_destroy called for cache that still has objects)"
        ),
        lambda match, log: CacheNotEmpty(log, match["slab"] or match["slub"], None),
    ),
    (
        re.compile(r"kmem_cache_destroy: Can't free all objects (\S+)"),
        lambda match, log: CacheNotEmpty(log, match[1], None),
    ),
    (
        re.compile(
            r"unregister_netdevice: waiting for (\S+) to become free\. Usage count = (-?\d+)"
            r"(?:.*)"
        ),
        lambda match, log: NetdeviceWaiting(log, match[1], int(match[2])),
    ),
    (re.compile(r"proc_dir_entry '(.*)' already registered"), _taken("proc")),
    (
        re.compile(r"debugfs: (?:File|Directory)? ?'(.*?)' .*already (?:present|exists)"),
        _taken("debugfs"),
    ),
    (re.compile(r"sysfs: cannot create duplicate filename '(.*)'"), _taken("sysfs")),
    (re.compile(r"kmem_cache of name '(.*)' already exists"), _taken("slab")),
    (
        re.compile(
            r"remove_proc_(?:entry|subtree): removing non-empty directory '(.*)', "
            r"leaking at least '(.*)'"
        ),
        lambda match, log: DirectoryNotEmpty(log, match[1], match[2]),
    ),
    (
        re.compile(
            r"refcount_t: |kobject: '.*' \(\S+\): is not initialized"
            r"|kobject: kobject \(\S+\): tried to init"
            r"|Device '.*' does not have a release\(\) function"
        ),
        lambda match, log: ReferenceMiscount(log),
    ),
    (
        re.compile(r"kmemleak: (\d+) new suspected memory leaks"),
        lambda match, log: KmemleakSuspects(log, int(match[1])),
    ),
    (
        re.compile(r"kmemleak: (?:Kernel memory leak detector disabled|kmemleak disabled)"),
        lambda match, log: KmemleakDisabled(log),
    ),
)


def recognise(text: str) -> bool:
    """Whether a line of the log, its prefix taken off, is one that stream() would use."""
    if _OBJECT.fullmatch(text) is not None:
        return True
    return any(pattern.match(text) is not None for pattern, _ in _PATTERNS)


def parse(source: Source) -> tuple[Witness, ...]:
    """All witness lines, in order."""
    return tuple(stream(source))


def lines(source: Source) -> Iterator[LogLine]:
    """Yield every line, whatever it says, but for the properties that follow a record."""
    for number, line in enumerate(iterate_lines(source), 1):
        if not line.startswith(" "):
            yield read_line(line, number)


def stream(source: Source) -> Iterator[Witness]:
    """Yield the witness lines one at a time; other lines are passed over."""
    remaining: ObjectsRemaining | None = None
    for number, line in enumerate(iterate_lines(source), 1):
        log = read_line(line, number)
        found_object = _OBJECT.fullmatch(log.text)
        if remaining is not None and found_object is not None:
            remaining = ObjectsRemaining(
                remaining.log,
                remaining.cache,
                (*remaining.object_addresses, int(found_object[1], 16)),
                (*remaining.object_offsets, int(found_object[2])),
            )
            continue
        witness = _recognise(log)
        if witness is None:
            continue
        if remaining is not None:
            yield remaining
        remaining = witness if isinstance(witness, ObjectsRemaining) else None
        if remaining is None:
            yield witness
    if remaining is not None:
        yield remaining


def _recognise(log: LogLine) -> Witness | None:
    for pattern, build in _PATTERNS:
        match = pattern.match(log.text)
        if match is not None:
            return build(match, log)
    return None


def read_line(line: str, number: int) -> LogLine:
    """A line of the log without its prefix, and what that told."""
    line = line.replace("\0", "")
    record = _KMSG_PREFIX.match(line)
    if record is not None:
        return LogLine(
            undress(line[record.end() :]),
            number,
            int(record[2]) / 1e6,
            int(record[1]) % _SEVERITIES,
        )
    text = undress(line)
    # undress() has taken the time away: it stands in the part that is gone
    seconds = _SECONDS.search(line[: len(line.rstrip()) - len(text)])
    return LogLine(text, number, None if seconds is None else float(seconds[1]))
