"""When, where and how a capture ran, gathered while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol

from kleak import __version__
from kleak.capture.engine.records import StackTotal
from kleak.capture.machine.settings import setting_changes
from kleak.capture.machine.settle import push_deferred_frees
from kleak.capture.witnesses.kernel_reports import KernelReports
from kleak.model.session import Answer, Circumstances, MemorySample, Session, Tally, TracedSite
from kleak.model.witnesses import WitnessState, absent
from kleak.parsers.elf_notes import parse_build_id

_MEMINFO = Path("/proc/meminfo")
_MODULES = Path("/sys/module")
MEMINFO_FIELDS = (
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "SwapCached",
    "AnonPages",
    "Shmem",
    "Hugetlb",
    "Slab",
    "SReclaimable",
    "SUnreclaim",
    "VmallocUsed",
    "Percpu",
    "KernelStack",
    "PageTables",
    "SecPageTables",
    "Balloon",
)
# When nothing is on its way any more, so that two samples can be compared.
_QUIET = frozenset({"start", "settled", "end"})


class Recorder(Protocol):
    """Keeps what was captured so far; :class:`kleak.store.writer.SessionWriter` is one."""

    def save(self, session: Session) -> None:
        """Keep ``session``; it is safe when this returns. Raises UnsupportedError if it is not."""


class Observer:
    """Takes samples of memory and the time as a capture goes on, and asks the kernel.

    Use as a context around the cycles.
    """

    def __init__(
        self,
        scope: Iterable[str],
        planned_cycles: int | None,
        build_ids: Mapping[str, str | None] | None = None,
    ) -> None:
        """Start the clock. ``scope``: names of modules, or globs of functions.

        ``build_ids`` are those of the modules that come and go, by name.
        """
        self._scope = tuple(scope)
        self._planned = planned_cycles
        self._known_build_ids = dict(build_ids or {})
        self._started_at = time.time()
        self._samples: list[MemorySample] = []
        self._reports = KernelReports(self._known_build_ids)
        self._pushing: Future[None] | None = None

    def begin(self) -> None:
        """Do meanwhile what entering does first, which is 0.1 s of waiting."""
        thread = ThreadPoolExecutor(1)
        self._pushing = thread.submit(push_deferred_frees)
        thread.shutdown(wait=False)  # it ends when that is done

    def __enter__(self) -> Observer:
        """Ask the kernel for the first time."""
        # As at the end: or what goes then would hide in the kernel's reports what stays.
        if self._pushing is None:
            push_deferred_frees()
        else:
            self._pushing.result()
        self._reports.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what is open."""
        self._reports.__exit__(kind, error, trace)

    @property
    def witnesses(self) -> dict[str, WitnessState]:
        """What came of asking each witness, as the last describe() found it."""
        found = dict(self._reports.states)
        if not any(sample.when == "settled" for sample in self._samples):
            found["meminfo"] = absent("not read at a quiet moment after each cycle")
        return found

    def follow_log(self) -> None:
        """Read on in the kernel log, before it overwrites what was not read yet."""
        self._reports.follow(None)

    def sample(self, when: str, cycle: int, totals: Iterable[StackTotal]) -> None:
        """Note what is outstanding now, by ``totals``, and what /proc/meminfo says."""
        count = size = 0
        for row in totals:
            count += row.allocated - row.freed
            size += row.allocated_bytes - row.freed_bytes
        now = time.monotonic_ns()
        self._samples.append(MemorySample(now, when, cycle, Tally(count, size), _read_meminfo()))
        self._reports.follow(now if when in _QUIET else None)

    def describe(
        self,
        sites: Iterable[TracedSite],
        answers: Iterable[Answer],
        *,
        finished: bool,
    ) -> Circumstances:
        """Return what there is to say now, just after the outstanding allocations were read."""
        return Circumstances(
            kleak_version=__version__,
            host=os.uname().nodename,
            started_at=self._started_at,
            read_at_ns=time.monotonic_ns(),
            scope=self._scope,
            planned_cycles=self._planned,
            finished=finished,
            build_ids=self._build_ids(sites),
            settings=setting_changes(),
            samples=tuple(self._samples),
            answers=(*answers, *self._reports.answers()),
        )

    def _build_ids(self, sites: Iterable[TracedSite]) -> dict[str, str]:
        """Build-ids of the modules on the stacks: known ones, or those that sysfs has."""
        modules = {
            frame.module for site in sites for frame in site.frames if frame.module is not None
        }
        found = {}
        for module in sorted(modules):
            if module in self._known_build_ids:
                build_id = self._known_build_ids[module]
            else:
                build_id = read_build_id(module)
            if build_id is not None:
                found[module] = build_id
        return found


def _read_meminfo() -> dict[str, int]:
    sizes = {}
    for line in _MEMINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name in MEMINFO_FIELDS:
            sizes[name] = int(value.split()[0]) * 1024
    return sizes


def read_build_id(module: str) -> str | None:
    """Return the build-id of a loaded module, hexadecimal; None if it has none or is gone."""
    try:
        return parse_build_id((_MODULES / module / "notes/.note.gnu.build-id").read_bytes())
    except OSError:
        return None
