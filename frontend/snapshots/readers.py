"""One report into a snapshot: which parser reads it, and what becomes of what it cannot read."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kleak.model.session import PAGE_BYTES, Kernel
from kleak.parsers import (
    allocinfo,
    buddyinfo,
    cgroups,
    counted_stacks,
    crash_kmem,
    free,
    kmemleak,
    kmsg,
    meminfo,
    memory_dump,
    page_owner,
    pagetypeinfo,
    proc_modules,
    processes,
    ref_tracker,
    slab_tables,
    slabinfo,
    slub_traces,
    smem,
    sysfs_slab,
    vmallocinfo,
    vmstat,
    zoneinfo,
)
from kleak.parsers.errors import ParseError
from kleak.parsers.kallsyms import Symbol
from kleak.parsers.memory_dump import MemoryDump
from kleak.parsers.page_owner import StackPages
from kleak.parsers.proc_modules import LoadedModule
from kleak.snapshots import page_counts, page_size
from kleak.snapshots.snapshot import Snapshot

Lines = Sequence[str] | bytes

_MODULE_SYMBOL = re.compile(r"((?:[0-9a-f]{8}){1,2}) ([tTwW]) (\S+)\s+\[([^\]\n]+)\]\s*")
# Names that mark where data lies in code, on arm (is_mapping_symbol() in the kernel's
# include/linux/module_symbol.h): no function is called so.
_MAPPING_SYMBOL = re.compile(r"\$[adtx](?:\.|$)|\.L|L0")
_MACHINE = re.compile(
    r"\b(x86_64|amd64|i[3-6]86|aarch64|arm64|armv\w+|ppc64(?:le)?|s390x|riscv\w*|mips\w*|loongarch64"
    r"|sparc64|alpha|ia64)\b"
)
_CACHE_PATH = re.compile(r"slab/([^/\s]+)/(?:alloc|free)_(?:calls|traces)")
_SHOWN_LOSSES = 5


@dataclass(slots=True)
class Draft:
    """A snapshot while its files are read."""

    label: str
    values: dict[str, Any] = field(default_factory=dict)
    damaged: Counter[str] = field(default_factory=Counter)
    traces: dict[str, slub_traces.SlubTraces] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    counted: dict[str, dict[str, int]] = field(default_factory=dict)
    asked_page_bytes: int | None = None

    def build(self) -> Snapshot:
        """The snapshot, with the page size as told, or as the reports give it away."""
        known = self.asked_page_bytes or self.values.pop("page_bytes", None) or self._infer()
        self._count_pages(known or PAGE_BYTES)
        return Snapshot(
            self.label,
            damaged=dict(self.damaged),
            alloc_traces=self.traces or None,
            losses=tuple(self.losses),
            known_page_bytes=known,
            **self.values,
        )

    def lose(self, report: str, sentence: str, count: int = 1) -> None:
        """Note ``count`` records of a report that could not be used."""
        if count:
            self.damaged[report] += count
        self.losses.append(sentence)

    def _infer(self) -> int | None:
        report = self.values.get("slabinfo")
        found = None if report is None else page_size.of_caches(report.caches)
        dump: MemoryDump | None = self.values.get("dump")
        if found is None and dump is not None:
            found = dump.page_bytes
        kernel: Kernel | None = self.values.get("kernel")
        if found is None and kernel is not None:
            found = page_size.of_machine(kernel.machine)
        return found

    def _count_pages(self, page_bytes: int) -> None:
        """Where there is no /proc/meminfo, what another report has of it."""
        if "meminfo" in self.values:
            return
        dump: MemoryDump | None = self.values.get("dump")
        if dump is not None and dump.counts:
            self.values["meminfo"] = page_counts.from_dump(dump, page_bytes)
            self.values["meminfo_from"] = "memory dump"
        elif "vmstat" in self.counted:
            self.values["meminfo"] = page_counts.from_vmstat(self.counted["vmstat"], page_bytes)
            self.values["meminfo_from"] = "vmstat"
        elif "crash" in self.counted:
            self.values["meminfo"] = page_counts.from_crash(self.counted["crash"], page_bytes)
            self.values["meminfo_from"] = "crash kmem -i"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a report came from, to say where a line of it stands.

    ``number_of`` maps the parser's number of a line to that in the file.
    """

    name: str = ""
    source: str | None = None
    number_of: Callable[[int | None], int | None] = lambda number: number


_Reader = Callable[[Draft, Lines, Origin], None]


def read_report(kind: str, draft: Draft, lines: Lines, origin: Origin | None = None) -> None:
    """Read one report into the draft. Raises KeyError for a kind that is none."""
    READERS[kind](draft, lines, origin or Origin())


def _note(draft: Draft, report: str, problems: Iterable[ParseError], origin: Origin) -> None:
    """Count what a parser could not read, and say where the first of it stands."""
    found = list(problems)
    if not found:
        return
    draft.damaged[report] += len(found)
    for problem in found[:_SHOWN_LOSSES]:
        number = origin.number_of(problem.line_number)
        place = origin.name + ("" if number is None else f" line {number}")
        line = "" if problem.line is None else f": {problem.line.strip()[:100]}"
        draft.losses.append(f"{place.strip() or report}: {report}: {problem.message}{line}")
    if len(found) > _SHOWN_LOSSES:
        draft.losses.append(f"{report}: {len(found) - _SHOWN_LOSSES} more lines could not be read")


def _whole(name: str, parse: Callable[..., Any], keep: str | None = None) -> _Reader:
    """A reader for a parser whose result holds its problems."""

    def read(draft: Draft, lines: Lines, origin: Origin) -> None:
        try:
            result = parse(lines, errors="collect")
        except ParseError as error:
            # not one record of it: what the file holds is no such report
            _note(draft, name, [error], origin)
            return
        draft.values.setdefault(keep or name, result)
        _note(draft, name, result.problems, origin)

    return read


def _read_meminfo(draft: Draft, lines: Lines, origin: Origin) -> None:
    problems: list[ParseError] = []
    reports = list(meminfo.stream(lines, errors="collect", problems=problems))
    if reports:
        draft.values["meminfo"] = reports[0]
    _note(draft, "meminfo", problems, origin)


def _read_page_owner(draft: Draft, lines: Lines, origin: Origin) -> None:
    """The raw form, summed by stack while it is read: it has a record for each page."""
    problems: list[ParseError] = []
    pages: Counter[tuple[Any, ...]] = Counter()
    for page in page_owner.stream(lines, errors="collect", problems=problems):
        pages[page.frames] += page.pages
    if "page_stacks" not in draft.values:
        draft.values["page_stacks"] = tuple(
            StackPages(count, frames) for frames, count in pages.items()
        )
    _note(draft, "page_owner", problems, origin)


def _read_page_owner_stacks(draft: Draft, lines: Lines, origin: Origin) -> None:
    report = page_owner.parse_stacks(lines, errors="collect")
    draft.values["page_stacks"] = report.stacks
    _note(draft, "page_owner", report.problems, origin)


def _read_alloc_traces(draft: Draft, lines: Lines, origin: Origin) -> None:
    named = _CACHE_PATH.search(origin.source or "") or _CACHE_PATH.search(origin.name)
    cache = "unnamed" if named is None else named[1]
    traces = slub_traces.parse(lines, errors="collect")
    draft.traces[cache] = traces
    _note(draft, "alloc_traces", traces.problems, origin)


def read_traces_of(cache: str, draft: Draft, lines: Lines) -> None:
    """alloc_traces of a cache that the file's name tells."""
    traces = slub_traces.parse(lines, errors="collect")
    draft.traces[cache] = traces
    _note(draft, "alloc_traces", traces.problems, Origin(f"alloc_traces-{cache}"))


def _text(lines: Lines) -> str:
    return lines.decode("utf-8", "replace") if isinstance(lines, bytes) else "".join(lines)


def _read_modules(draft: Draft, lines: Lines, origin: Origin) -> None:
    try:
        draft.values["modules"] = proc_modules.parse_modules(_text(lines))
    except ParseError as error:
        _note(draft, "modules", [error], origin)


def _read_lsmod(draft: Draft, lines: Lines, origin: Origin) -> None:
    modules = []
    for line in _text(lines).splitlines():
        words = line.split()
        if len(words) >= 3 and words[1].isdigit():
            users = tuple(words[3].split(",")) if len(words) > 3 else ()
            modules.append(LoadedModule(words[0], int(words[1]), None, users, "Live", 0, ""))
    draft.values.setdefault("modules", tuple(modules))


def _read_kallsyms(draft: Draft, lines: Lines, origin: Origin) -> None:
    """The text symbols of modules, in the order of addresses.

    A snapshot holds the lines of modules only, which kleak.parsers.kallsyms takes for damage.
    """
    matches = map(_MODULE_SYMBOL.fullmatch, _text(lines).splitlines())
    symbols = [
        Symbol(int(match[1], 16), match[2], match[3], match[4])
        for match in matches
        if match is not None and _MAPPING_SYMBOL.match(match[3]) is None
    ]
    if symbols and not any(symbol.address for symbol in symbols):
        reason = "refused: kptr_restrict or a missing CAP_SYSLOG hid the addresses"
        draft.values.setdefault("missing", {})["kallsyms"] = reason
        return
    draft.values["module_symbols"] = tuple(sorted(symbols, key=lambda symbol: symbol.address))


def _read_slab_aliases(draft: Draft, lines: Lines, origin: Origin) -> None:
    """Names that are links to one directory are one cache."""
    groups: dict[str, list[str]] = defaultdict(list)
    for line in _text(lines).splitlines():
        name, _, target = line.partition(" ")
        if name and target:
            groups[target].append(name)
    draft.values["slab_aliases"] = {
        name: tuple(other for other in names if other != name)
        for names in groups.values()
        for name in names
    }


def _read_log(draft: Draft, lines: Lines, origin: Origin) -> None:
    """The witness lines; of several logs together, each line once."""
    before = draft.values.get("log") or ()
    known = {(type(one), one.log.text, one.log.time_seconds) for one in before}
    fresh = [
        one
        for one in kmsg.parse(lines)
        if not before or (type(one), one.log.text, one.log.time_seconds) not in known
    ]
    draft.values["log"] = (*before, *fresh)
    dumps = memory_dump.parse(lines)
    if dumps:
        draft.values["dump"] = dumps[-1]


def _read_table(tool: str) -> _Reader:
    def read(draft: Draft, lines: Lines, origin: Origin) -> None:
        table = slab_tables.parse(tool, lines, errors="collect")
        if table.caches:
            draft.values.setdefault("slab_tables", {})[tool.removesuffix(", old")] = table.caches
        _note(draft, tool, table.problems, origin)

    return read


def _read_sysfs_slab(draft: Draft, lines: Lines, origin: Origin) -> None:
    report = sysfs_slab.parse(lines, errors="collect")
    _note(draft, "sysfs_slab", report.problems, origin)
    usages = []
    for name, figures in report.caches.items():
        objects = figures.get("objects", figures.get("total_objects"))
        size = figures.get("slab_size") or figures.get("object_size")
        slabs, order = figures.get("slabs"), figures.get("order")
        held = None
        if slabs is not None and order is not None:
            page_bytes = draft.asked_page_bytes or PAGE_BYTES
            held = (slabs << min(order, 16)) * page_bytes
        elif objects is not None and size is not None:
            held = objects * size
        if held is not None:
            usages.append(slab_tables.CacheUsage(name, held, objects, size))
    if usages:
        draft.values.setdefault("slab_tables", {})["/sys/kernel/slab"] = tuple(usages)


def _read_vmstat(draft: Draft, lines: Lines, origin: Origin) -> None:
    report = vmstat.parse(lines, errors="collect")
    draft.counted["vmstat"] = report.values
    _note(draft, "vmstat", report.problems, origin)


def _read_crash(draft: Draft, lines: Lines, origin: Origin) -> None:
    report = crash_kmem.parse_memory(lines, errors="collect")
    draft.counted["crash"] = report.pages
    if report.page_bytes is not None:
        draft.values.setdefault("page_bytes", report.page_bytes)
    _note(draft, "crash kmem -i", report.problems, origin)


def _read_stacks(tool: str, parse: Callable[..., counted_stacks.CountedStacks]) -> _Reader:
    def read(draft: Draft, lines: Lines, origin: Origin) -> None:
        report = parse(lines, errors="collect")
        draft.values.setdefault("counted_stacks", {})[tool] = report
        _note(draft, tool, report.problems, origin)

    return read


def _read_references(draft: Draft, lines: Lines, origin: Origin) -> None:
    report = ref_tracker.parse(lines, errors="collect")
    draft.values["references"] = (*draft.values.get("references", ()), *report.references)
    _note(draft, "ref_tracker", report.problems, origin)


def _read_uname(draft: Draft, lines: Lines, origin: Origin) -> None:
    text = _text(lines)
    release = re.search(r"\b(\d+\.\d+(?:\.\d+)?\S*)", text)
    machine = _MACHINE.search(text)
    if release is not None:
        kernel = Kernel(release[1], "unknown" if machine is None else machine[1])
        draft.values.setdefault("kernel", kernel)


READERS: dict[str, _Reader] = {
    "meminfo": _read_meminfo,
    "slabinfo": _whole("slabinfo", slabinfo.parse),
    "buddyinfo": _whole("buddyinfo", buddyinfo.parse),
    "zoneinfo": _whole("zoneinfo", zoneinfo.parse),
    "vmallocinfo": _whole("vmallocinfo", vmallocinfo.parse),
    "kmemleak": _whole("kmemleak", kmemleak.parse),
    "allocinfo": _whole("allocinfo", allocinfo.parse),
    "pagetypeinfo": _whole("pagetypeinfo", pagetypeinfo.parse),
    "page_owner": _read_page_owner,
    "page_owner_stacks": _read_page_owner_stacks,
    "alloc_traces": _read_alloc_traces,
    "modules": _read_modules,
    "lsmod": _read_lsmod,
    "kallsyms": _read_kallsyms,
    "slab_aliases": _read_slab_aliases,
    "dmesg": _read_log,
    **{tool: _read_table(tool) for tool in slab_tables.ROWS},
    "sysfs_slab": _read_sysfs_slab,
    "vmstat": _read_vmstat,
    "crash kmem -i": _read_crash,
    "crash kmem -v": _whole("crash kmem -v", crash_kmem.parse_regions, "crash_regions"),
    "memleak": _read_stacks("memleak", counted_stacks.parse_memleak),
    "bpftrace": _read_stacks("bpftrace", counted_stacks.parse_bpftrace),
    "ref_tracker": _read_references,
    "free": _whole("free", free.parse),
    "smem": _whole("smem", smem.parse),
    "processes": _whole("processes", processes.parse),
    "cgroups": _whole("cgroups", cgroups.parse),
    "memory.stat": _whole("memory.stat", cgroups.parse_stat, "memory_stat"),
    "uname": _read_uname,
}
"""All kinds of report that snapshots hold, with what reads each."""
