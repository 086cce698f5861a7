"""Reading snapshots back: directories and tars of ``kleak collect``, and bare report files."""

from __future__ import annotations

import gzip
import io
import mmap
import os
import re
import stat
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from kleak.errors import UsageError
from kleak.model.session import PAGE_BYTES, Kernel
from kleak.parsers import (
    allocinfo,
    buddyinfo,
    kmemleak,
    kmsg,
    meminfo,
    page_owner,
    proc_modules,
    slabinfo,
    slub_traces,
    vmallocinfo,
    zoneinfo,
)
from kleak.parsers.errors import ParseError
from kleak.parsers.kallsyms import Symbol
from kleak.parsers.page_owner import StackPages
from kleak.snapshots.detect import find_sections
from kleak.snapshots.snapshot import Snapshot

MANIFEST = "manifest"
MANIFEST_VERSION = "1"
_TRACES_PREFIX = "alloc_traces-"
_MODULE_SYMBOL = re.compile(rb"(?m)^([0-9a-f]{16}) ([tTwW]) (\S+)\t\[([^\]\n]+)\]\s*$")
_GZIP_MAGIC = b"\x1f\x8b"
_UNREADABLE = (OSError, EOFError, zlib.error)  # the last two: gzip that is cut off, or damaged


@dataclass(slots=True)
class _Draft:
    """A snapshot while its files are read."""

    label: str
    values: dict[str, Any] = field(default_factory=dict)
    damaged: Counter[str] = field(default_factory=Counter)
    traces: dict[str, slub_traces.SlubTraces] = field(default_factory=dict)

    def build(self) -> Snapshot:
        traces = self.traces or None
        return Snapshot(self.label, damaged=dict(self.damaged), alloc_traces=traces, **self.values)


def read_snapshots(paths: Sequence[Path]) -> list[Snapshot]:
    """All snapshots of the paths, in the order given, those of a directory by number.

    A path is a directory of snapshots, one snapshot, a tar of either, or a bare report (gzip or
    not), which is recognised by its content. The first report of each kind among bare files is
    one snapshot, the second of each kind the next, and so on. Damaged records are skipped and
    counted. Raises UsageError where a path cannot be read or nothing is recognised in it.
    """
    snapshots: list[Snapshot] = []
    bare: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                found = _read_directory(path)
            elif path.is_file() and tarfile.is_tarfile(path):  # it looks twice, as at no pipe
                found = _read_tar(path)
            else:
                bare.append(path)
                continue
        except (*_UNREADABLE, tarfile.TarError) as error:
            raise UsageError(f"cannot read {path}: {error}") from error
        if not found:
            raise UsageError(f"{path}: no snapshot of kleak collect and no report in it")
        snapshots += found
    return snapshots + _read_bare(bare)


def check_order(snapshots: Sequence[Snapshot]) -> None:
    """Raise UsageError where one of two snapshots that follow each other is not the older one.

    Of one boot only: nobody knows what the clock of a board said after another.
    """
    for before, after in pairwise(snapshots):
        if before.boot_id is None or before.boot_id != after.boot_id:
            continue
        if before.uptime_seconds is None or after.uptime_seconds is None:
            continue
        if before.uptime_seconds == after.uptime_seconds:
            raise UsageError(f"snapshots {before.label} and {after.label} are the same one")
        if before.uptime_seconds > after.uptime_seconds:
            raise UsageError(
                f"snapshot {after.label} was taken before {before.label}: give the oldest first"
            )


# --- snapshots of kleak collect ------------------------------------------------------------


def _read_directory(path: Path) -> list[Snapshot]:
    if (path / MANIFEST).is_file():
        return [_read_one(path.name, _files_of(path))]
    entries = sorted(path.iterdir(), key=lambda entry: _by_number(entry.name))
    numbered = [entry for entry in entries if _is_snapshot(entry)]
    if numbered:
        return [shot for entry in numbered for shot in _read_entry(entry)]
    return _read_bare([entry for entry in entries if entry.is_file()])


def _is_snapshot(entry: Path) -> bool:
    return (entry / MANIFEST).is_file() or (entry.suffix == ".tar" and tarfile.is_tarfile(entry))


def _read_entry(entry: Path) -> list[Snapshot]:
    return [_read_one(entry.name, _files_of(entry))] if entry.is_dir() else _read_tar(entry)


def _files_of(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.iterdir()):
        if path.is_file():
            yield path.name, _read_bytes(path)


def _read_tar(path: Path) -> list[Snapshot]:
    """The snapshots in a tar, read in memory: nothing is unpacked."""
    folders: dict[str, dict[str, tarfile.TarInfo]] = defaultdict(dict)
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isfile():
                folders[str(name.parent)][name.name] = member

        def contents(folder: str) -> Iterator[tuple[str, bytes]]:
            for name, member in sorted(folders[folder].items()):
                file = archive.extractfile(member)
                if file is not None:
                    yield name, file.read()

        names = [folder for folder in folders if MANIFEST in folders[folder]]
        return [
            _read_one(PurePosixPath(folder).name or path.stem, contents(folder))
            for folder in sorted(names, key=_by_number)
        ]


def _by_number(name: str) -> tuple[int, str]:
    digits = re.search(r"(\d+)[^/]*$", name)
    return (int(digits[1]) if digits else 0, name)


def _read_one(label: str, files: Iterable[tuple[str, bytes]]) -> Snapshot:
    draft = _Draft(label)
    for name, data in files:
        if name == MANIFEST:
            draft.values.update(_read_manifest(label, data))
        elif name.startswith(_TRACES_PREFIX):
            cache = name.removeprefix(_TRACES_PREFIX)
            traces = slub_traces.parse(data, errors="collect")
            draft.traces[cache] = traces
            _count_damage(draft, "alloc_traces", traces.problems)
        elif name in _READERS:
            _READERS[name](draft, data)
    return draft.build()


def _read_manifest(label: str, data: bytes) -> dict[str, Any]:
    values = {}
    for line in data.decode("utf-8", "backslashreplace").splitlines():
        key, _, value = line.partition(": ")
        values[key] = value.strip()
    version = values.get("kleak-snapshot")
    if version != MANIFEST_VERSION:
        raise UsageError(
            f"snapshot {label}: its format is {version or 'unknown'}, this kleak reads "
            f"{MANIFEST_VERSION}"
        )
    missing = {
        key.removeprefix("report "): value
        for key, value in values.items()
        if key.startswith("report ") and value != "saved"
    }
    uptime = values.get("uptime_seconds", "")
    told = values.get("page_bytes", "")
    page_bytes = int(told) if re.fullmatch(r"\d{4,6}", told) else PAGE_BYTES
    return {
        "time": values.get("time"),
        "uptime_seconds": float(uptime) if re.fullmatch(r"\d+(\.\d+)?", uptime) else None,
        "page_bytes": page_bytes,
        "kernel": Kernel(
            values.get("kernel", "unknown"),
            values.get("machine", "unknown"),
            page_bytes=page_bytes,
        ),
        "boot_id": values.get("boot_id"),
        "dropped_caches": values.get("drop_caches") == "done",
        "scanned": values.get("scan") == "done",
        "missing": missing,
    }


# --- bare files ----------------------------------------------------------------------------


def _read_bare(paths: Sequence[Path]) -> list[Snapshot]:
    """One snapshot of the first report of each kind, one of the second, and so on."""
    drafts: list[_Draft] = []
    seen: Counter[str] = Counter()
    labels: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        recognised = False
        for kind, data in _sections_of(path):
            recognised = True
            number = seen[kind]
            seen[kind] += 1
            if number == len(drafts):
                drafts.append(_Draft(""))
            _READERS[kind](drafts[number], data)
            if path.name not in labels[number]:
                labels[number].append(path.name)
        if not recognised:
            raise UsageError(f"{path}: not a report that kleak knows; see kleak explain")
    for number, draft in enumerate(drafts):
        draft.label = "+".join(labels[number])
    return [draft.build() for draft in drafts]


def _sections_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """The reports in a file. It is mapped, so that only one report at a time is in memory."""
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            data: bytes | mmap.mmap
            # A pipe has no size, nor has a file of /proc.
            if stat.S_ISREG(about.st_mode) and about.st_size:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            else:
                data = file.read()
            if data[:2] == _GZIP_MAGIC:
                data = gzip.decompress(data)
            if not data:
                return
            for section in find_sections(data):
                yield section.kind, data[section.start : section.end]
    except _UNREADABLE as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _read_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == _GZIP_MAGIC else data


# --- one report ----------------------------------------------------------------------------


def _count_damage(draft: _Draft, report: str, problems: Sequence[ParseError]) -> None:
    if problems:
        draft.damaged[report] += len(problems)


def _whole(name: str, parse: Callable[..., Any]) -> Callable[[_Draft, bytes], None]:
    """A reader for a parser whose result holds its problems."""

    def read(draft: _Draft, data: bytes) -> None:
        try:
            result = parse(data, errors="collect")
        except ParseError:
            # not one record of it: what the file holds is no such report
            draft.damaged[name] += 1
            return
        draft.values[name] = result
        _count_damage(draft, name, result.problems)

    return read


def _read_meminfo(draft: _Draft, data: bytes) -> None:
    problems: list[ParseError] = []
    reports = list(meminfo.stream(data, errors="collect", problems=problems))
    if reports:
        draft.values["meminfo"] = reports[0]
    _count_damage(draft, "meminfo", problems)


def _read_page_owner(draft: _Draft, data: bytes) -> None:
    """The raw form, summed by stack while it is read: it has a record for each page."""
    problems: list[ParseError] = []
    pages: Counter[tuple[Any, ...]] = Counter()
    for page in page_owner.stream(io.BytesIO(data), errors="collect", problems=problems):
        pages[page.frames] += page.pages
    if "page_stacks" not in draft.values:
        draft.values["page_stacks"] = tuple(
            StackPages(count, frames) for frames, count in pages.items()
        )
    _count_damage(draft, "page_owner", problems)


def _read_page_owner_stacks(draft: _Draft, data: bytes) -> None:
    report = page_owner.parse_stacks(data, errors="collect")
    draft.values["page_stacks"] = report.stacks
    _count_damage(draft, "page_owner", report.problems)


def _read_alloc_traces(draft: _Draft, data: bytes) -> None:
    traces = slub_traces.parse(data, errors="collect")
    draft.traces["unnamed"] = traces
    _count_damage(draft, "alloc_traces", traces.problems)


def _read_modules(draft: _Draft, data: bytes) -> None:
    try:
        draft.values["modules"] = proc_modules.parse_modules(data.decode("utf-8", "replace"))
    except ParseError:
        draft.damaged["modules"] += 1


def _read_kallsyms(draft: _Draft, data: bytes) -> None:
    """The text symbols of modules, in the order of addresses.

    A snapshot holds the lines of modules only, which kleak.parsers.kallsyms takes for damage.
    """
    symbols = [
        Symbol(int(match[1], 16), match[2].decode(), match[3].decode(), match[4].decode())
        for match in _MODULE_SYMBOL.finditer(data)
    ]
    if symbols and not any(symbol.address for symbol in symbols):
        reason = "refused: kptr_restrict or a missing CAP_SYSLOG hid the addresses"
        draft.values.setdefault("missing", {})["kallsyms"] = reason
        return
    draft.values["module_symbols"] = tuple(sorted(symbols, key=lambda symbol: symbol.address))


def _read_slab_aliases(draft: _Draft, data: bytes) -> None:
    """Names that are links to one directory are one cache."""
    groups: dict[str, list[str]] = defaultdict(list)
    for line in data.decode("utf-8", "backslashreplace").splitlines():
        name, _, target = line.partition(" ")
        if name and target:
            groups[target].append(name)
    draft.values["slab_aliases"] = {
        name: tuple(other for other in names if other != name)
        for names in groups.values()
        for name in names
    }


def _read_log(draft: _Draft, data: bytes) -> None:
    draft.values["log"] = kmsg.parse(data)


_READERS: dict[str, Callable[[_Draft, bytes], None]] = {
    "meminfo": _read_meminfo,
    "slabinfo": _whole("slabinfo", slabinfo.parse),
    "buddyinfo": _whole("buddyinfo", buddyinfo.parse),
    "zoneinfo": _whole("zoneinfo", zoneinfo.parse),
    "vmallocinfo": _whole("vmallocinfo", vmallocinfo.parse),
    "kmemleak": _whole("kmemleak", kmemleak.parse),
    "allocinfo": _whole("allocinfo", allocinfo.parse),
    "page_owner": _read_page_owner,
    "page_owner_stacks": _read_page_owner_stacks,
    "alloc_traces": _read_alloc_traces,
    "modules": _read_modules,
    "kallsyms": _read_kallsyms,
    "slab_aliases": _read_slab_aliases,
    "dmesg": _read_log,
}
