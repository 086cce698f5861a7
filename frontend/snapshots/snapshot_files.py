"""Reading snapshots back: what ``kleak collect`` made, and whatever else somebody has.

That is files with one report or many, in any dress (detect.py), directories of such, archives,
the trees that sosreport, supportconfig and bug-report tools make. What is known is taken, what
is not is told, and the rest goes on.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from kleak.errors import UsageError
from kleak.model.session import Kernel
from kleak.snapshots import readers
from kleak.snapshots.archives import UNREADABLE, Budget, File, read_file, read_tree
from kleak.snapshots.detect import Section, find_sections
from kleak.snapshots.page_size import of_machine
from kleak.snapshots.readers import READERS, Draft, Origin, read_report
from kleak.snapshots.snapshot import Snapshot

MANIFEST = "manifest"
MANIFEST_VERSION = "1"
_TRACES_PREFIX = "alloc_traces-"
_SHOWN = 8
# Reports that are one a machine, not one a moment: a second of them is no second snapshot.
_TIMELESS = frozenset(("dmesg", "uname", "lsmod", "kallsyms", "modules", "ref_tracker",
                       "memory.stat", "processes", "free", "cgroups", "pagetypeinfo"))  # fmt: skip
# A file by one of these names says something by being empty.
_EMPTY_SAYS = ("kmemleak", "modules", "page_owner_stacks", "page_owner", "kallsyms", "dmesg")
# What is in a text that may hold a report: files without any of it are not read line by line.
_WORTH = re.compile(
    rb"(?i)kB|slab|alloc|unreferenced|0x[0-9a-f]{8}|zone|func:|\bfree\b|kmem|nr_|age=|@\w*\["
    rb"|num_cgroups|\+0x|users at|\d: |Linux |Module  |K [a-z]|leak|PID|k\x00|s\x00l"
)


@dataclass(slots=True)
class Reading:
    """Snapshots, oldest first, and sentences on what of the files was not used."""

    snapshots: list[Snapshot] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Found:
    """A file outside of any snapshot of kleak collect, with the reports in it."""

    file: File
    sections: list[Section]


def read_snapshots(paths: Sequence[Path], *, page_bytes: int | None = None) -> list[Snapshot]:
    """The snapshots of ``read()``, without its remarks."""
    return read(paths, page_bytes=page_bytes).snapshots


def read(
    paths: Sequence[Path], *, pasted: bytes | None = None, page_bytes: int | None = None
) -> Reading:
    """All snapshots of the paths, in the order given, those of a directory by number.

    A path is a directory of snapshots, one snapshot, an archive of either, or anything else that
    may hold reports: a file, a directory, an archive. ``pasted`` is a text without a path. The
    first report of each kind among all these is one snapshot, the second of each kind the next,
    and so on. ``page_bytes`` is the size of a page where the user says it. Damaged records are
    skipped, counted and told. Raises UsageError where a path that was named cannot be read, and
    where no report is recognised in any.
    """
    reading = Reading()
    budget = Budget()
    found: list[_Found] = []
    for path in paths:
        try:
            if path.is_dir():
                if _read_collected(path, reading, page_bytes):
                    continue
                files = list(read_tree(path, budget))
            else:
                files = read_file(path, budget)
                if len(files) > 1 and _read_archived(path, files, reading, page_bytes):
                    continue
        except UNREADABLE as error:
            raise UsageError(f"cannot read {path}: {error}") from error
        found += _look_into(files)
    if pasted is not None:
        found += _look_into([File("standard input", pasted)])
    reading.snapshots += _from_bare(found, page_bytes, reading)
    reading.remarks += budget.refused
    if not reading.snapshots:
        names = ", ".join(map(str, paths[:_SHOWN])) or "standard input"
        raise UsageError(f"{names}: no report that kleak knows in it; see kleak explain")
    return reading


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


def _read_collected(path: Path, reading: Reading, page_bytes: int | None) -> bool:
    """Take a directory of snapshots, or one. Returns whether it was such."""
    if (path / MANIFEST).is_file():
        reading.snapshots.append(_read_one(path.name, _files_of(path), page_bytes))
        return True
    entries = sorted(path.iterdir(), key=lambda entry: _by_number(entry.name))
    taken = False
    for entry in entries:
        if entry.is_dir() and (entry / MANIFEST).is_file():
            reading.snapshots.append(_read_one(entry.name, _files_of(entry), page_bytes))
            taken = True
        elif entry.is_file() and entry.suffix == ".tar":
            files = read_file(entry, Budget())
            taken = _read_archived(entry, files, reading, page_bytes) or taken
    return taken


def _files_of(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.iterdir()):
        if path.is_file():
            [*files] = read_file(path, Budget())
            yield path.name, files[0].data if files else b""


def _read_archived(
    path: Path, files: Sequence[File], reading: Reading, page_bytes: int | None
) -> bool:
    """Take the snapshots of an archive. Returns whether it held any."""
    folders: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for file in files:
        name = PurePosixPath(file.name)
        folders[str(name.parent)].append((name.name, file.data))
    names = [name for name, held in folders.items() if any(one == MANIFEST for one, _ in held)]
    for folder in sorted(names, key=_by_number):
        label = PurePosixPath(folder).name or path.stem
        reading.snapshots.append(_read_one(label, sorted(folders[folder]), page_bytes))
    return bool(names)


def _by_number(name: str) -> tuple[int, str]:
    digits = re.search(r"(\d+)[^/]*$", name)
    return (int(digits[1]) if digits else 0, name)


def _read_one(label: str, files: Iterable[tuple[str, bytes]], page_bytes: int | None) -> Snapshot:
    draft = Draft(label, asked_page_bytes=page_bytes)
    for name, data in files:
        if name == MANIFEST:
            draft.values.update(_read_manifest(label, data))
        elif name.startswith(_TRACES_PREFIX):
            readers.read_traces_of(name.removeprefix(_TRACES_PREFIX), draft, data)
        elif name in READERS:
            read_report(name, draft, data, Origin(name))
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
    machine = values.get("machine", "unknown")
    told = values.get("page_size", "")
    return {
        "time": values.get("time"),
        "uptime_seconds": float(uptime) if re.fullmatch(r"\d+(\.\d+)?", uptime) else None,
        "kernel": Kernel(values.get("kernel", "unknown"), machine),
        "boot_id": values.get("boot_id"),
        "dropped_caches": values.get("drop_caches") == "done",
        "scanned": values.get("scan") == "done",
        "missing": missing,
        "page_bytes": int(told) if re.fullmatch(r"[1-9]\d{3,6}", told) else of_machine(machine),
    }


# --- anything else -------------------------------------------------------------------------


def _look_into(files: Iterable[File]) -> list[_Found]:
    found = []
    for file in files:
        sections = find_sections(file.data) if _WORTH.search(file.data) is not None else []
        found.append(_Found(file, sections))
    return found


def _from_bare(found: Sequence[_Found], page_bytes: int | None, reading: Reading) -> list[Snapshot]:
    """One snapshot of the first report of each kind, one of the second, and so on."""
    drafts: list[Draft] = []
    seen: Counter[str] = Counter()
    labels: dict[int, list[str]] = defaultdict(list)
    unknown = []
    several = len(found) > 1
    late: list[tuple[_Found, Section]] = []

    def draft_of(number: int, name: str) -> Draft:
        while number >= len(drafts):
            drafts.append(Draft("", asked_page_bytes=page_bytes))
        if name not in labels[number]:
            labels[number].append(name)
        return drafts[number]

    for one in found:
        name = PurePosixPath(one.file.name).name
        kind = None if one.sections else _empty_report(one.file, found)
        if kind is not None:
            # an empty list is a finding: nobody leaked, no module was loaded
            read_report(kind, draft_of(seen[kind], name), b"")
            seen[kind] += 1
            continue
        if not one.sections:
            unknown.append(one.file.name)
        for section in one.sections:
            if section.kind in _TIMELESS:
                late.append((one, section))
                continue
            draft = draft_of(seen[section.kind], name)
            seen[section.kind] += 1
            _read_section(draft, section, one.file.name)
    for one, section in late:
        # what tells of a whole boot belongs to the last look
        draft = draft_of(max(len(drafts) - 1, 0), PurePosixPath(one.file.name).name)
        _read_section(draft, section, one.file.name)
    if unknown and (drafts or several):
        shown = ", ".join(unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        reading.remarks.append(f"no report that kleak knows in {shown}{more}")
    _tell_pages(drafts)
    for number, draft in enumerate(drafts):
        draft.label = draft.values.get("time") or "+".join(labels[number])
    return [draft.build() for draft in drafts]


def _tell_pages(drafts: Sequence[Draft]) -> None:
    """The machine and its page size, told once, hold for all snapshots of these files."""
    kernel = next((d.values["kernel"] for d in drafts if "kernel" in d.values), None)
    if kernel is not None:
        for draft in drafts:
            draft.values.setdefault("kernel", kernel)


def _empty_report(file: File, others: Sequence[_Found]) -> str | None:
    """Which report a file without a word in it is: by its name, or by what all others are."""
    if file.data.strip(b"\0 \t\r\n\xef\xbb\xbf"):
        return None
    name = PurePosixPath(file.name).name.lower()
    for kind in _EMPTY_SAYS:
        if kind in name:
            return kind
    kinds = {section.kind for one in others for section in one.sections}
    only = next(iter(kinds)) if len(kinds) == 1 else None
    return only if only == "kmemleak" else None


def _read_section(draft: Draft, section: Section, name: str) -> None:
    if section.time is not None:
        draft.values.setdefault("time", section.time)
    lines = section.text()
    read_report(section.kind, draft, lines, Origin(name, section.source, section.number_of))
    within = [line for line in section.unread if line.within]
    for line in section.unread[:_SHOWN]:
        where = "within" if line.within else "behind"
        draft.losses.append(
            f"{name} line {line.number}: not used, {where} {section.kind}: {line.text[:100]}"
        )
    if len(section.unread) > _SHOWN:
        draft.losses.append(
            f"{name}: {len(section.unread) - _SHOWN} more lines within {section.kind} not used"
        )
    if within:
        draft.damaged[section.kind] += len(within)
