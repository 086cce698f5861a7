"""Saving one snapshot of every text report that this kernel offers.

A snapshot is a directory DIR/NNN with one file a report, named as snapshot_files.py reads
them, and ``manifest``: lines "key: value" with time, kernel, what was refused and why. The shell
script that ``script()`` returns makes the same on a machine without Python.
"""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

from kleak.errors import UnsupportedError
from kleak.files.guard import Guard, held_text
from kleak.files.lookup import opened_directory
from kleak.files.output_files import failure
from kleak.files.ownership import give_to_caller
from kleak.parsers import vmallocinfo

_PROC_REPORTS = ("meminfo", "slabinfo", "buddyinfo", "zoneinfo", "modules", "allocinfo")
_KPTR_RESTRICT = "proc/sys/kernel/kptr_restrict"
_DEBUGFS = "sys/kernel/debug"
_MIN_AGE_SECONDS = 5  # MSECS_MIN_AGE in mm/kmemleak.c: younger objects are not reported
_GRACE_SECONDS = 1
_CHUNK_BYTES = 1 << 20


def script() -> str:
    """The POSIX shell script that collects a snapshot, for machines without Python."""
    return (files("kleak.snapshots") / "collect.sh").read_text("utf-8")


@dataclass(slots=True)
class Snapshot:
    """A snapshot while it is written. ``refused`` maps a report to why it is missing.

    Its files are made in ``directory``, which is held open: others may own the one above, and
    put a link in the place of this one.
    """

    path: Path
    directory: int
    manifest: list[tuple[str, str]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def note(self, key: str, value: str) -> None:
        """Add a line to the manifest."""
        self.manifest.append((key, value))

    def not_done(self) -> list[str]:
        """What was asked for and not done, a sentence each with the reason."""
        done = {"drop_caches": "caches were not dropped", "scan": "kmemleak did not scan"}
        return [
            f"{done[key]}: {value.removeprefix('refused: ')}"
            for key, value in self.manifest
            if key in done and value not in ("done", "not asked")
        ]

    def save(self, report: str, source: Path) -> bool:
        """Copy one report; absence and refusal are noted. Returns whether it was saved."""
        try:
            with source.open("rb") as reader:
                self._write(report, iter(partial(reader.read, _CHUNK_BYTES), b""))
        except FileNotFoundError:
            self.refuse(report, "absent")
            return False
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self._remove(report)
            self.refuse(report, f"refused: {error.strerror}")
            return False
        self.note(f"report {report}", "saved")
        return True

    def put(self, report: str, content: Iterable[bytes]) -> None:
        """Save a report that was put together here."""
        self._write(report, content)
        self.note(f"report {report}", "saved")

    def put_manifest(self) -> None:
        """Save the manifest, which makes it a snapshot."""
        lines = "".join(f"{key}: {value}\n" for key, value in self.manifest)
        self._write("manifest", [lines.encode()])

    def read(self, report: str) -> BinaryIO:
        """Open a report that was saved."""
        flags = os.O_RDONLY | os.O_NOFOLLOW
        return open(os.open(report, flags, dir_fd=self.directory), "rb")

    def refuse(self, report: str, reason: str) -> None:
        """Note why a report is missing."""
        self.refused[report] = reason
        self.note(f"report {report}", reason)

    def clear(self) -> None:
        """Remove what was saved."""
        for name in [*self.files]:
            self._remove(name)

    def _write(self, name: str, content: Iterable[bytes]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self.files.append(name)
        with open(os.open(name, flags, 0o600, dir_fd=self.directory), "wb") as file:
            give_to_caller(file.fileno())
            file.writelines(content)

    def _remove(self, name: str) -> None:
        if name in self.files:
            self.files.remove(name)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.directory)


def collect(
    directory: Path, *, drop_caches: bool = False, scan: bool = False, root: Path = Path("/")
) -> Snapshot:
    """Save the next snapshot in ``directory``, which is made if need be.

    ``drop_caches`` has the kernel give back page cache, dentries and inodes first; ``scan`` has
    kmemleak look twice. ``root`` is where /proc and /sys are. kernel.kptr_restrict and the mount
    of debugfs are put back on every way out. Raises UnsupportedError where there is no /proc,
    KleakError where ``directory`` cannot be written.
    """
    if not (root / "proc/meminfo").exists():
        raise UnsupportedError(f"no {root / 'proc/meminfo'}: is /proc mounted?")
    with ExitStack() as held:
        try:
            above = held.enter_context(opened_directory(str(directory), make=True))
            number = _reserve(above)
            unfinished = _unfinished(number)
            made = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            held.callback(os.close, made)
            if os.listdir(made):
                raise OSError(errno.EEXIST, f"another one has put {unfinished} there")
        except OSError as error:
            raise failure(f"cannot write snapshots to {directory}", error) from error
        snapshot = Snapshot(directory / f"{number:03}", made)
        try:
            give_to_caller(made)
            with _debugfs(root, snapshot):
                _describe(snapshot, number, root)
                _prepare(snapshot, root, drop_caches=drop_caches, scan=scan)
                _save_reports(snapshot, root)
            snapshot.put_manifest()
            os.rename(unfinished, snapshot.path.name, src_dir_fd=above, dst_dir_fd=above)
        except BaseException as error:
            snapshot.clear()
            with suppress(OSError):  # another one's
                os.rmdir(unfinished, dir_fd=above)
            if isinstance(error, OSError):
                raise failure(f"cannot write snapshots to {directory}", error) from error
            raise
    return snapshot


def _reserve(above: int) -> int:
    """Make the directory of the next snapshot in the directory ``above``; return its number."""
    number = 1
    while True:
        if not any(_exists(f"{number:03}{suffix}", above) for suffix in ("", ".tar")):
            with suppress(FileExistsError):
                os.mkdir(_unfinished(number), 0o700, dir_fd=above)  # decides between two at once
                return number
        number += 1


def _unfinished(number: int) -> str:
    return f"{number:03}.partial"


def _exists(name: str, above: int) -> bool:
    try:
        os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _describe(snapshot: Snapshot, number: int, root: Path) -> None:
    snapshot.note("kleak-snapshot", "1")
    snapshot.note("number", str(number))
    snapshot.note("time", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    for key, path in (
        ("uptime_seconds", "proc/uptime"),
        ("kernel", "proc/sys/kernel/osrelease"),
        ("boot_id", "proc/sys/kernel/random/boot_id"),
    ):
        text = _read(root / path)
        if text is not None:
            snapshot.note(key, text.split()[0])
    snapshot.note("machine", platform.machine())
    snapshot.note("page_size", str(os.sysconf("SC_PAGE_SIZE")))
    snapshot.note("uid", str(os.geteuid()))


def _prepare(snapshot: Snapshot, root: Path, *, drop_caches: bool, scan: bool) -> None:
    """Drop caches and scan, in this order, and note what came of it."""
    if drop_caches:
        os.sync()
        drop = root / "proc/sys/vm/drop_caches"
        # twice: what the first write sends through RCU, the second finds free
        snapshot.note("drop_caches", _write(drop, "3", wait_seconds=_GRACE_SECONDS, times=2))
    else:
        snapshot.note("drop_caches", "not asked")
    kmemleak = root / _DEBUGFS / "kmemleak"
    if not scan:
        snapshot.note("scan", "not asked")
    elif not kmemleak.exists():
        snapshot.note("scan", "absent")
    else:
        # two scans: the first only records the checksum of a new object
        time.sleep(_MIN_AGE_SECONDS)
        snapshot.note("scan", _write(kmemleak, "scan", wait_seconds=_MIN_AGE_SECONDS, times=2))


def _save_reports(snapshot: Snapshot, root: Path) -> None:
    for report in _PROC_REPORTS:
        snapshot.save(report, root / "proc" / report)
    debugfs = root / _DEBUGFS
    with _real_addresses(root / _KPTR_RESTRICT):
        saved = snapshot.save("vmallocinfo", root / "proc/vmallocinfo")
        _save_kallsyms(snapshot, root / "proc/kallsyms")
        snapshot.save("kmemleak", debugfs / "kmemleak")
    snapshot.note("addresses", _addresses(snapshot) if saved else "unknown")
    if not snapshot.save("page_owner_stacks", debugfs / "page_owner_stacks/show_stacks"):
        snapshot.save("page_owner", debugfs / "page_owner")
    _save_slab_directory(snapshot, root)
    status, output, error = _run("dmesg")
    if status == 0:
        snapshot.put("dmesg", [output])
    else:
        snapshot.refuse("dmesg", f"refused: {error.rpartition(': ')[2]}")


def _save_kallsyms(snapshot: Snapshot, path: Path) -> None:
    """Only the symbols of modules: they are gone once the module is."""
    try:
        with path.open("rb") as reader:
            listed = b"".join(line for line in reader if b"[" in line)
    except OSError as error:
        snapshot.refuse("kallsyms", f"refused: {error.strerror}")
    else:
        snapshot.put("kallsyms", [listed])


def _save_slab_directory(snapshot: Snapshot, root: Path) -> None:
    slab = root / "sys/kernel/slab"
    if slab.is_dir():
        # a merged cache is a link to the one it was merged into
        links = sorted(path for path in slab.iterdir() if path.is_symlink())
        lines = "".join(f"{link.name} {os.readlink(link)}\n" for link in links)
        snapshot.put("slab_aliases", [lines.encode()])
    else:
        snapshot.refuse("slab_aliases", "absent")
    traced = root / _DEBUGFS / "slab"
    if not traced.is_dir():
        return
    for cache in sorted(path for path in traced.iterdir() if not path.is_symlink()):
        text = _read(cache / "alloc_traces")
        if text is not None and any(character.isdigit() for character in text):
            snapshot.put(f"alloc_traces-{cache.name}", [text.encode()])


def _addresses(snapshot: Snapshot) -> str:
    with snapshot.read("vmallocinfo") as lines:
        kinds = {region.address_kind for region in vmallocinfo.stream(lines, errors="collect")}
    return kinds.pop().value if len(kinds) == 1 else ("mixed" if kinds else "unknown")


@contextmanager
def _real_addresses(kptr_restrict: Path) -> Iterator[None]:
    """Have %pK print real addresses to a reader with CAP_SYSLOG, if this may be set at all."""
    before = _read(kptr_restrict)
    with ExitStack() as held:
        if before is not None and before.strip() != "1":
            with suppress(OSError):
                held.enter_context(held_text(kptr_restrict, "1", before.strip()))
        yield


@contextmanager
def _debugfs(root: Path, snapshot: Snapshot) -> Iterator[None]:
    """Mount debugfs for the time being where it is not mounted and may be."""
    point = root / _DEBUGFS
    mounts = _read(root / "proc/mounts") or ""
    if f" /{_DEBUGFS} debugfs " in mounts or not point.is_dir() or root != Path("/"):
        yield
        return
    status, _, error = _run("mount", "-t", "debugfs", "debugfs", str(point))
    if status != 0:
        snapshot.note("debugfs", "refused: " + error.partition("\n")[0])
        yield
        return
    with Guard("umount", str(point)) as guard:
        yield
    if not guard.put_back:
        snapshot.note("debugfs", "stays mounted: it is in use")


def _run(*command: str) -> tuple[int, bytes, str]:
    """Run a command. Returns its status (127 where there is no such command) and both outputs."""
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        return 127, b"", f"no command {command[0]}"
    return done.returncode, done.stdout, done.stderr.decode("utf-8", "backslashreplace").strip()


def _read(path: Path) -> str | None:
    """The text of a small file of the kernel, None where it is absent or refused."""
    try:
        return path.read_text("utf-8", errors="backslashreplace")
    except OSError:
        return None


def _write(path: Path, text: str, *, wait_seconds: float = 0, times: int = 1) -> str:
    """Write a command to a file of the kernel. Returns "done" or "refused: why"."""
    try:
        for turn in range(times):
            if turn:
                time.sleep(wait_seconds)
            path.write_text(text)
    except OSError as error:
        return f"refused: {error.strerror}"
    return "done"
