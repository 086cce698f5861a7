"""Which report a text is, by its content: files that somebody mailed have any name.

A file may hold several reports, of one kind or of many, one after the other.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass

# What stands only at the start of a record or of a report, after an optional log prefix.
_ANCHORS = re.compile(
    rb"""(?mx) ^ (?:<\d+>)? (?:\[[ ]*\d+\.\d+\](?:\[[ ]*[TC]\d+\])?[ ])? (?:kmemleak:[ ])?
    (?: (?P<meminfo>      MemTotal:[ ]+\d)
      | (?P<slabinfo>     slabinfo[ ]-[ ]version)
      | (?P<allocinfo>    allocinfo[ ]-[ ]version)
      | (?P<vmallocinfo>  0x(?:[0-9a-f]{8,16}|\(_*ptrval_*\))-0x)
      | (?P<kmemleak>     unreferenced[ ]object[ ])
      | (?P<page_owner>   Page[ ]allocated[ ]via[ ]order)
      | (?P<page_owner_stacks> [ ]*(?:nr_base_pages|stack_count):[ ]\d)
      | (?P<zoneinfo>     Node[ ]\d+,[ ]zone[ ]+\w+\s*$)
      | (?P<buddyinfo>    Node[ ]\d+,[ ]zone[ ]+\w+[ ]+\d)
      | (?P<alloc_traces> [ ]*\d+[ ]\S+(?:[ ]\[\S+\])?[ ](?:waste=\S+[ ])?age=\d)
      | (?P<modules>      \S+[ ]\d+[ ]-?\d+[ ]\S+[ ](?:Live|Loading|Unloading)[ ]0x)
      | (?P<kallsyms>     [0-9a-f]{16}[ ][A-Za-z][ ]\S+(?:\t\[\S+\])?\r?$)
    )"""
)
# Records of these follow each other; each anchor of the others begins a report of its own.
_RECORDS = frozenset(
    ("vmallocinfo", "kmemleak", "page_owner", "page_owner_stacks", "buddyinfo", "zoneinfo",
     "alloc_traces", "modules", "kallsyms")
)  # fmt: skip
# Their first line is not the anchor: what stands before the first anchor is theirs too.
_ANCHORED_LATE = frozenset(("page_owner_stacks",))
_LOG_LINE = re.compile(rb"(?m)^(?:<\d+>)?(?:\S.*kernel: )?\[ *\d+\.\d+\]|^\d+,\d+,\d+,[^;\n]*;")


@dataclass(frozen=True, slots=True)
class Section:
    """One report within a text: its kind and where it stands, in bytes."""

    kind: str
    start: int
    end: int


def find_sections(data: bytes | mmap.mmap) -> list[Section]:
    """The reports in ``data``, in order; empty where nothing is recognised.

    A kernel log is a section "dmesg" over the whole, besides whatever else is found in it.
    """
    starts: list[tuple[str, int]] = []
    for kind, position in _anchors(data):
        if starts and starts[-1][0] == kind and kind in _RECORDS:
            continue
        first = not starts
        starts.append((kind, 0 if first and kind in _ANCHORED_LATE else position))
    ends = [start for _, start in starts[1:]] + [len(data)]
    # ends has one more where nothing was found
    sections = [Section(kind, start, end) for (kind, start), end in zip(starts, ends, strict=False)]
    if _LOG_LINE.search(data[: 1 << 16]) is not None:
        sections.append(Section("dmesg", 0, len(data)))
    return sections


def _anchors(data: bytes | mmap.mmap) -> Iterator[tuple[str, int]]:
    for match in _ANCHORS.finditer(data):
        if match.lastgroup is not None:
            yield match.lastgroup, match.start()
