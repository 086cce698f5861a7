"""What a line of each report looks like, once nothing stands around it.

A *row* of a report tells what it is by itself. Others are read in the context of a report only:
a frame belongs to whatever stack has begun, "name number" to /proc/vmstat after a row that is
surely its. The parsers decide later what a row means, and whether it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kleak.parsers import (
    cgroups,
    counted_stacks,
    crash_kmem,
    free,
    kmsg,
    meminfo,
    memory_dump,
    pagetypeinfo,
    processes,
    ref_tracker,
    slab_tables,
    smem,
)

LOG = "dmesg"
_POINTER = r"0x(?:[0-9a-f]{8,16}|\(_*ptrval_*\))"
_LOCATION = (
    r"(?:[A-Za-z_$][^\s+]*\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[[^\]\s]+(?: [0-9a-f]+)?\])?"
    r"(?: [^\s:()]+\.[A-Za-z]{1,3}:\d+(?: \[inline\])?)?"
    r"|[A-Za-z_][\w.$]* (?:[^\s:()]+\.[A-Za-z]{1,3}:\d+ \[inline\]"
    r"|\((?:[^\s()]+:\d+|\?\?:\??)(?: \(discriminator \d+\))?\)(?: \[?[\w-]+\]?)?)"
    r"|0x[0-9a-f]{8,16})"
)
_FRAME = re.compile(rf"(?:\[<(?:0x)?(?:[0-9a-f]{{8,16}}|\(_*ptrval_*\))>\] +)?{_LOCATION}")
_FRAME_REST = re.compile(r"\[[A-Za-z_]\w*(?: [0-9a-f]+)?\]|[^\s:()]+\.[ch]:\d+(?: \[inline\])?")
_KNOWN_FIELDS = frozenset(meminfo.field_names())
_FIELD = r"[A-Za-z][\w()]*:\s*\d[\d,]*(?: ?[kK]i?[bB])?"
_SEVERAL_FIELDS = re.compile(rf"(?:{_FIELD}[\s,;|]+)+{_FIELD}")
_ONE_FIELD = re.compile(_FIELD)
_MEMINFO = re.compile(
    r"(?P<name>[A-Za-z][\w()]*)\s*:\s*(?P<value>\d[\d,]*)\s*(?P<unit>[kK]i?[bB])?"
)
_COUNT_FIELDS = frozenset(("HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"))
_ALLOCINFO = re.compile(
    r"(?P<size>-?\d+(?:\.\d+)?)(?P<unit>[KMGTP]?i?B?)(?P<rest>\s+\d+\s+\S.*:\d+(?: \[[^\]]+\])?"
    r" func:\S+.*)"
)
_SCALE = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_VMALLOCINFO = re.compile(rf"{_POINTER}-{_POINTER}\s+\d+(?:\s.*)?")
_VMALLOC_TAIL = re.compile(
    rf"(?:{_LOCATION}\s*)?(?:\[\w+\]\s*)?(?:(?:pages=\d+|phys=\S+|vmalloc|ioremap|vmap|user|vpages"
    r"|sparse|dma-coherent|N\d+=\d+|unpurged vm_area|vm_map_ram)\s*)*"
)
_SLABINFO = re.compile(
    r"(?P<key>\S.*?)\s+\d+\s+\d+\s+\d+\s+\d+\s+\d+\s+: tunables\s+\d+\s+\d+\s+\d+\s+: slabdata"
    r"\s+\d+\s+\d+\s+\d+(?:\s+:.*)?"
)
_SLAB_REST = re.compile(r"(?:\d+|:|tunables|slabdata|\s|(?:tun|slab)?(?:ables|data))+")
# What of slabinfo's own head a mail program put on a line by itself.
_HEAD_PIECE = re.compile(
    r"[#\s]*(?:name\s*)?(?:<[a-z_]+>|:|tunables|slabdata|globalstat|cpustat|\s|#"
    r"|<tag info>)+(?<![#\s:])[:\s]*"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line that was recognised. ``text`` is as the kernel prints it.

    ``begins`` is whether a report begins here for sure. ``key`` is what occurs once in a report:
    seen again, a second one has begun. ``is_head`` is a title that holds no figure.
    """

    kind: str
    text: str
    begins: bool = False
    key: str | None = None
    is_head: bool = False


def _meminfo(text: str, known: bool) -> Row | None:
    match = _MEMINFO.fullmatch(text)
    if match is None or (known and match["name"] not in _KNOWN_FIELDS):
        return None
    name, value = match["name"], match["value"].replace(",", "")
    counted = name in _COUNT_FIELDS
    if match["unit"] is None and not counted and known:
        return None
    unit = "" if match["unit"] is None else " kB"
    return Row("meminfo", f"{name}: {value}{unit}", begins=name == "MemTotal", key=name)


def _allocinfo(text: str) -> Row | None:
    match = _ALLOCINFO.fullmatch(text)
    if match is None:
        return None
    unit = match["unit"].rstrip("B").rstrip("i")
    return Row("allocinfo", f"{round(float(match['size']) * _SCALE[unit])}{match['rest']}")


def _vmallocinfo(text: str) -> Row | None:
    if _VMALLOCINFO.fullmatch(text) is None:
        return None
    span = text.split(None, 1)[0]
    hidden = set(span) <= set("0x-") or "ptrval" in span
    return Row("vmallocinfo", text, key=None if hidden else span)


_OBJECT = re.compile(
    r"(?:BUG: memory leak\W*)?(?P<row>unreferenced object (?:\((?:percpu|phys)\) )?"
    r"(?P<key>0x[0-9a-f]+) \(size \d+\)):?"
)


def _kmemleak(text: str) -> Row | None:
    match = _OBJECT.fullmatch(text)
    return None if match is None else Row("kmemleak", f"{match['row']}:", key=match["key"])


_Recogniser = Callable[[str], "Row | None"]


def _simple(
    kind: str, pattern: str | re.Pattern[str], *, begins: bool = False, head: bool = False
) -> _Recogniser:
    """A recogniser of lines that stay as they are; a group "key" of the pattern is the key."""
    compiled = re.compile(pattern) if isinstance(pattern, str) else pattern
    keyed = "key" in compiled.groupindex

    def recognise(text: str) -> Row | None:
        match = compiled.fullmatch(text)
        if match is None:
            return None
        return Row(kind, text, begins, match["key"] if keyed else None, head)

    return recognise


def _table(tool: str) -> _Recogniser:
    pattern = slab_tables.ROWS[tool][0]

    def recognise(text: str) -> Row | None:
        match = pattern.fullmatch(text)
        return None if match is None else Row(tool, text, key=match["name"])

    return recognise


def _log(text: str) -> Row | None:
    return Row(LOG, text) if kmsg.recognise(text) or memory_dump.begins(text) else None


_NODE_ZONE = r"(?P<key>Node\s+\d+,\s+zone\s+\w+)"
_FRAME_OF = {kind: _simple(kind, _FRAME) for kind in
             ("kmemleak", "page_owner", "alloc_traces", "ref_tracker")}  # fmt: skip

# Rows that are known by themselves, the commonest first.
_BY_THEMSELVES: tuple[_Recogniser, ...] = (
    _kmemleak,
    _vmallocinfo,
    lambda text: _meminfo(text, True),
    _simple("slabinfo", r"slabinfo - version: .*", begins=True, head=True),
    _simple("slabinfo", _SLABINFO),
    _simple("slabinfo", r"#\s?name\s+<active_objs>.*", head=True),
    _simple("allocinfo", r"allocinfo - version: .*", begins=True, head=True),
    _simple("allocinfo", r"#\s+<size>\s+<calls> <tag info>", head=True),
    _allocinfo,
    _simple("page_owner", r"\d+ times(?:, \d+ pages)?(?:,.*)?:"),
    _simple("page_owner", r"Page allocated via order .*"),
    _simple("page_owner_stacks", r"(?:nr_base_pages|stack_count): \d+"),
    _simple("zoneinfo", rf"{_NODE_ZONE}"),
    _simple("pagetypeinfo", pagetypeinfo.FREE_ROW),
    _simple("pagetypeinfo", pagetypeinfo.HEAD, head=True),
    _simple("buddyinfo", rf"{_NODE_ZONE}(?:\s+\d+){{4,}}"),
    _simple("alloc_traces", rf"\d+ (?:{_LOCATION}|<not-available>|[A-Za-z_][\w.$]*(?: \[\S+\])?)"
                            r"(?: waste=\S+)? age=\d.*"),
    _simple("modules", r"(?P<key>\S+) \d+ (?:-?\d+|-) \S+ (?:Live|Loading|Unloading) 0x[0-9a-f]+"
                       r".*"),
    _simple("kallsyms", r"(?:[0-9a-f]{8}|[0-9a-f]{16}) [A-Za-z?] \S+(?:\s+\[\S+\])?"),
    _simple("lsmod", r"Module\s+Size\s+Used by.*", begins=True, head=True),
    *(_table(tool) for tool in ("slabtop", "crash kmem -s", "crash kmem -s, old",
                                "slabinfo tool", "spl")),
    *(_simple(tool, head, head=True) for tool, head in slab_tables.HEADS.items()),
    _simple("sysfs_slab", r"(?P<key>(?:\S*/)?slab/[^/\s]+/[a-z_]+):\s?-?\d+(?:\s.*)?"),
    _simple("vmstat", r"(?P<key>nr_[a-z_]+) \d+"),
    _simple("memleak", r"\[\d\d:\d\d:\d\d\] Top \d+ stacks with outstanding allocations:",
            begins=True),
    _simple("memleak", r"\d+ bytes in \d+ allocations from stack.*"),
    _simple("bpftrace", r"@\w*\[[^\]]*"),
    _simple("ref_tracker", ref_tracker.HEAD),
    _simple("free", free.HEAD, begins=True, head=True),
    _simple("free", r"(?P<key>Mem):(?:\s+[\d.]+[A-Za-z]*){3,}"),
    _simple("free", free.TOP, begins=True),
    _simple("smem", smem.HEAD, begins=True, head=True),
    _simple("smem", smem.ROW.pattern.replace("?P<area>", "?P<key>").replace("?P<used>", "").replace(
        "?P<cache>", "").replace("?P<noncache>", "")),
    _simple("crash kmem -i", r"PAGES\s+TOTAL\s+PERCENTAGE", begins=True, head=True),
    _simple("crash kmem -i", r"(?P<key>TOTAL MEM)\s+\d+\s+[\d.]+ [KMGT]B.*"),
    _simple("crash kmem -v", r"VMAP_AREA\s+VM_STRUCT\s+ADDRESS RANGE\s+SIZE", begins=True,
            head=True),
    _simple("crash kmem -v", crash_kmem.REGION),
    _simple("cgroups", cgroups.HEAD, begins=True, head=True),
    _simple("memory.stat", r"(?P<key>slab_unreclaimable|slab_reclaimable|kernel_stack|percpu|sock"
                           r"|file_mapped|inactive_anon) \d+"),
    _simple("processes", processes.HEAD, begins=True, head=True),
    _simple("uname", r"Linux \S+ \d+\.\d+\.?\S* .*|Linux version \d+\.\d+.*", begins=True),
    _log,
)  # fmt: skip

_COMM = r'comm ".*", pid -?\d+, jiffies \d+(?: \(age \d+\.\d+s(?:ec)?\))?'
# Rows that need the report that they are in.
_IN_CONTEXT: dict[str, tuple[_Recogniser, ...]] = {
    "kmemleak": (
        _FRAME_OF["kmemleak"],
        _simple("kmemleak", r"(?:[0-9a-f]{2} ){15}[0-9a-f]{2}(?:\s.*)?"
                            r"|(?:[0-9a-f]{2} ){0,15}[0-9a-f]{2}(?:\s{2,}\S{1,16})?"),
        _simple("kmemleak", _COMM),
        _simple("kmemleak", r"hex dump \(first \d+ bytes(?: on cpu \d+)?\):"),
        _simple("kmemleak", r"backtrace(?: \(crc [0-9a-f]+\))?:"),
    ),
    "page_owner": (
        _FRAME_OF["page_owner"],
        _simple("page_owner", r"PFN (?P<key>0x[0-9a-f]+|\d+) .*"),
        _simple("page_owner", r"(?:Page has been migrated|Charged |Page is |Slab cache page).*"),
    ),
    "alloc_traces": (_FRAME_OF["alloc_traces"],),
    "ref_tracker": (_FRAME_OF["ref_tracker"],),
    "meminfo": (lambda text: _meminfo(text, False),),
    "vmstat": (_simple("vmstat", r"(?P<key>[a-z][a-z0-9_]+) \d+"),),
    "zoneinfo": (
        _simple("zoneinfo", r"per-node stats|pagesets|protection: .*|vm stats threshold:\s+\d+"
                            r"|(?:pages free|[A-Za-z]\w*:?)\s+\S+"),
    ),
    "pagetypeinfo": (_simple("pagetypeinfo", r"Node\s+\d+, zone\s+\S+(?:\s+\d+){3,8}"),),
    "lsmod": (_simple("lsmod", r"(?P<key>\w+)\s+\d+\s+-?\d+(?:\s+\S+)?(?: \([A-Z]+\))?"),),
    "vmstat -m": (_table("vmstat -m"),),
    "memleak": (lambda text: Row("memleak", text) if counted_stacks.is_frame(text) else None,),
    "bpftrace": (
        _simple("bpftrace", r"[^\]]*\]: -?\d+"),
        lambda text: Row("bpftrace", text) if counted_stacks.is_frame(text.rstrip(",")) else None,
    ),
    "free": (_simple("free", free.ROW), _simple("free", free.TOP_OTHER)),
    "crash kmem -i": (
        _simple("crash kmem -i", re.compile(
            crash_kmem.ROW.pattern.replace("?P<name>", "?P<key>"))),
    ),
    "cgroups": (_simple("cgroups", r"(?P<key>\w+)\s+\d+\s+\d+\s+[01]"),),
    "memory.stat": (_simple("memory.stat", cgroups.STAT.pattern.replace("?P<name>", "?P<key>")),),
    "slabinfo": (
        # rows of Linux 2.4, and rows that were cut behind what matters
        _simple("slabinfo", r"(?P<key>\S.*?)(?:\s+\d+){5,6}(?:\s+:.*)?"),
        _simple("slabinfo", _HEAD_PIECE, head=True),
    ),
}  # fmt: skip


def recognise(text: str, context: str | None) -> Row | None:
    """What a line is, with the kind of the report that it would continue; None for neither."""
    for one in _IN_CONTEXT.get(context or "", ()):
        row = one(text)
        if row is not None:
            return row
    for one in _BY_THEMSELVES:
        row = one(text)
        if row is not None:
            return row
    return None


def fields_of_one_line(text: str) -> list[str]:
    """The fields of /proc/meminfo that somebody's program put on one line; else the text alone."""
    if _SEVERAL_FIELDS.fullmatch(text) is None:
        return [text]
    fields = _ONE_FIELD.findall(text)
    return fields if any(field.partition(":")[0] in _KNOWN_FIELDS for field in fields) else [text]


def part_of_object(text: str) -> str:
    """Which part of a kmemleak object its row is: head, comm, backtrace, frame or hex."""
    if text.startswith("unreferenced object"):
        return "head"
    if text.startswith('comm "'):
        return "comm"
    if text.startswith("backtrace"):
        return "backtrace"
    return "frame" if is_frame(text) else "hex"


def is_frame(text: str) -> bool:
    """Whether the line is a frame of a stack, of whatever report."""
    return _FRAME.fullmatch(text) is not None


def continues(row: Row, text: str) -> bool:
    """Whether ``text``, no row itself, is the rest of ``row``, which could also stand alone."""
    if row.kind == "vmallocinfo":
        ends_open = re.search(r"vmalloc|ioremap|vmap|vm_map_ram|unpurged", row.text) is None
        return _VMALLOC_TAIL.fullmatch(text) is not None and (ends_open or text.startswith("N"))
    if row.kind == "slabinfo" and not row.is_head:
        return _SLABINFO.fullmatch(row.text) is None and _SLAB_REST.fullmatch(text) is not None
    if row.kind in _FRAME_OF:
        return is_frame(row.text) and _FRAME_REST.fullmatch(text) is not None
    if row.kind == LOG:
        return text.startswith(("when called from ", "from ")) and "still has objects" in row.text
    return False


def join(row: Row, rest: str) -> Row:
    """The row with what continues it: behind the blank that the wrapping ate, or without one."""
    text = f"{row.text} {rest}"
    if row.kind == "slabinfo" and _SLABINFO.fullmatch(row.text + rest) is not None:
        text = text if _SLABINFO.fullmatch(text) is not None else row.text + rest
    return Row(row.kind, text, row.begins, row.key, row.is_head)


# How the first part of a row looks that was cut in two: only such are worth joining.
_HALVES = re.compile(
    rf"{_POINTER}-.*|0x[0-9a-f]{{8,16}}-?|\S.*?\s+\d+\s+\d+\s+\d+.*|-?\d+\s+\d+\s+\S+.*"
    r"|(?:BUG: memory leak )?unreferenced object.*|comm \".*|hex dump.*|backtrace \(crc.*"
    r"|\[<[0-9a-f]+.*|[A-Za-z_][\w.]*\+0x[0-9a-f/x]*.*|Page allocated via.*|PFN .*|\S+ \d+ -?\d+ .*"
    r"|.*(?:allocated at module|module \S+ func:|unregister_netdevice|Slab cache still|Objects"
    r"|suspected memory|invoked oom|page allocation|slab error in|kmem_cache_destroy).*"
    r"|[A-Z]\w+:(?:\s*\d+)?|\d+ bytes in .*|\d+ \S+\+0x.*"
)


def may_be_half(text: str) -> bool:
    """Whether the line looks like the first part of a row that was cut in two."""
    return _HALVES.fullmatch(text) is not None


def is_head_piece(text: str) -> bool:
    """Whether the line is a part of a table's title."""
    return _HEAD_PIECE.fullmatch(text) is not None
