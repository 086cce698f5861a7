"""Which reports a text holds, by its content: files that somebody mailed have any name and dress.

Each line is undressed layer by layer until it reads as a row of some report (rows.py). Rows of
one report that follow each other are a Section, whatever stands between them; a time, a command
at a prompt or a row that a report has only once begins the next. A row that was wrapped is joined
with what follows it. The lines of a kernel log make one Section of all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kleak.parsers import memory_dump
from kleak.snapshots import rows
from kleak.snapshots.decode import TextLine, text_lines
from kleak.snapshots.rows import LOG, Row
from kleak.snapshots.undress import (
    Layer,
    command,
    is_fence,
    peel,
    time_alone,
    watch_head,
    without_tail,
)

_JOINED_MOST = 4
# So many other lines may stand within a dump of memory, such as the stack of who asked.
_DUMP_GAP = 120
_SEPARATOR = re.compile(
    r"(?:-{3,}|={3,}|#{3,}|\*{3,}|~{3,}|#==\[|={2}>)\s*(?P<title>\S.*?)?\s*"
    r"(?:-{3,}|={3,}|#{3,}|\*{3,}|~{3,}|\]={3,}#?|<={2})|[-=#*~_]{4,}"
)
_BARE_COMMAND = re.compile(
    r"(?:(?:#|\$|>|\+)\s*)?(?:sudo\s+)?(?:/\S*/)?(?:cat|zcat|head|tail|grep|egrep|sort|less|more)"
    r"\s(?:.*\s)?[\"']?/(?:proc|sys)/\S+.*|(?:\S*\s)?(?P<path>/(?:proc|sys)/[\w./-]+):?"
)
_ELIDED = re.compile(
    r"[\[(<{*-]*\s*(?:\.{2,}|snip\w*|cut|skipped|truncated|omitted|elided|(?:\d+|more|other|some)"
    r" (?:more )?(?:lines?|frames?|entries|objects)(?: .*)?)\s*[\])>}*-]*",
    re.IGNORECASE,
)
_STACK_ENDS = re.compile(
    r"Call [Tt]race:?|RIP: .*|Hardware name: .*|---\[ .*|CPU: \d+ .*|Modules linked in.*"
)
_LOG_HEAD = re.compile(r"\s*(?:<\d+>)?\[[ ]*\d+\.\d+\]|.{0,60}\bkernel(?:\[\d+\])?: |\d+,\d+,\d+,")
# A line of a log without any of these is nothing that is looked for.
_LOG_WORTH = re.compile(
    r"unreferenced|memory leak|backtrace|hex dump|comm \"|kmemleak|allocated at|still alive|slab"
    r"|Slab|SLUB|Objects remaining|Object 0x|unregister_netdevice|already|non-empty|refcount"
    r"|kobject|release\(\)|ref_tracker|oom-killer|page allocation|Mem-[Ii]nfo|bytes in|times"
    r"|Page allocated|Linux version| kB|Node |:kmalloc|tunables|\+0x|0x[0-9a-f]+-0x|\[<|allocs"
)


@dataclass(frozen=True, slots=True)
class Unread:
    """A line within a report, or right behind it, that could not be used."""

    number: int
    text: str
    within: bool = True


@dataclass(slots=True)
class Section:
    """One report: its kind, and its rows as the kernel printed them with their line numbers.

    ``time`` is what stood before it, ``source`` the command or path that it came from, each None
    where the text does not say.
    """

    kind: str
    lines: list[TextLine] = field(default_factory=list)
    time: str | None = None
    source: str | None = None
    unread: list[Unread] = field(default_factory=list)

    def text(self) -> list[str]:
        """The rows, each with its end, for a parser."""
        return [f"{line.text}\n" for line in self.lines]

    def number_of(self, line_number: int | None) -> int | None:
        """The number in the file of what a parser calls line ``line_number``."""
        if line_number is None or not 0 < line_number <= len(self.lines):
            return None
        return self.lines[line_number - 1].number


@dataclass(slots=True)
class _Progress:
    """What has been read so far."""

    sections: list[Section] = field(default_factory=list)
    log: Section | None = None
    current: Section | None = None
    keys: set[str] = field(default_factory=set)
    has_head: bool = False
    time: str | None = None
    source: str | None = None
    frames: list[TextLine] = field(default_factory=list)
    foreign: list[Unread] = field(default_factory=list)
    dump_gap: int = _DUMP_GAP
    saw_log: bool = False
    object_part: str = ""

    @property
    def context(self) -> str | None:
        """The kind of the report that the next row may continue."""
        return None if self.current is None else self.current.kind

    def close(self) -> None:
        """End the report that is open: what comes next is another."""
        self._leave()
        self.current = None

    def _leave(self) -> None:
        """What stood right behind the last row was no part of another report: say so."""
        if self.current is not None and self.foreign:
            first = self.foreign[0]
            self.current.unread.append(Unread(first.number, first.text, within=False))
        self.foreign = []

    def accepts(self, row: Row, number: int) -> bool:
        """Whether the row goes on with the kmemleak object that is open, or is of another report.

        Where the head of an object was lost, its other lines are nobody's: they must not be taken
        for the one before. Where "backtrace:" was, the frames say that it stood there.
        """
        if row.kind != "kmemleak":
            return True
        part = rows.part_of_object(row.text)
        if part == "head":
            self.object_part = part
            return True
        if part == "comm":
            self.object_part = part if self.object_part == "head" else ""
        elif part == "frame" and self.object_part == "comm" and self.current is not None:
            self.current.lines.append(TextLine(number, "backtrace:"))
            self.object_part = "backtrace"
        elif part == "backtrace" and self.object_part:
            self.object_part = part
        return bool(self.object_part)

    def add(self, row: Row, number: int, layer: Layer | None) -> None:
        """Book a row: with the report that is open, or as the first of the next."""
        if row.kind == LOG:
            self._add_to_log(row.text, number, layer)
            return
        repeated = row.key is not None and row.key in self.keys and not self.has_head
        fresh = self.current is None or self.current.kind != row.kind
        if fresh or repeated or (row.begins and bool(self.current and self.current.lines)
                                 and self._holds_figures()):  # fmt: skip
            self._leave()
            self.current = Section(row.kind, time=self.time, source=self.source)
            if layer is not None and layer.time is not None and self.time is None:
                self.current.time = layer.time
            self.time = None
            self.sections.append(self.current)
            self.keys, self.has_head = set(), False
        assert self.current is not None
        self.current.unread += self.foreign
        self.foreign = []
        if row.kind == "page_owner_stacks":
            self.current.lines += self.frames
            self.frames = []
        self.has_head = self.has_head or (row.begins and row.kind == "slabinfo")
        if row.key is not None:
            self.keys.add(row.key)
        if row.is_head and not row.begins and row.kind in ("slabinfo", "allocinfo"):
            return
        self.current.lines.append(TextLine(number, row.text))

    def _holds_figures(self) -> bool:
        return self.current is not None and (
            bool(self.keys) or len(self.current.lines) > 1 or self.current.kind == "uname"
        )

    def _add_to_log(self, text: str, number: int, layer: Layer | None) -> None:
        if self.log is None:
            self.log = Section(LOG)
        if layer is not None and layer.seconds is not None:
            text = f"[{layer.seconds:12.6f}] {text}"
        self.log.lines.append(TextLine(number, text))


def find_sections(data: bytes) -> list[Section]:
    """The reports in ``data``, in order; empty where nothing is recognised.

    A kernel log is one section "dmesg", besides whatever else is found in it.
    """
    lines = list(_expanded(data))
    progress = _Progress()
    position = 0
    while position < len(lines):
        position += _take(lines, position, progress)
    _drop_frames(progress)
    progress.close()
    if progress.log is None and progress.saw_log:
        progress.log = Section(LOG)
    found = [one for one in progress.sections if one.lines]
    return found if progress.log is None else [*found, progress.log]


def _expanded(data: bytes) -> Iterator[TextLine]:
    for line in text_lines(data):
        if line.text.count(":") < 2 or " kB" not in line.text:
            yield line
            continue
        for layer in peel(line.text):
            fields = rows.fields_of_one_line(layer.text)
            if len(fields) > 1:
                yield from (TextLine(line.number, one) for one in fields)
                break
        else:
            yield line


def _take(lines: list[TextLine], position: int, progress: _Progress) -> int:
    """Read on from one line. Returns how many lines that took."""
    line = lines[position]
    text = line.text.strip()
    if not text:
        _blank(progress, line.number)
        return 1
    if _LOG_HEAD.match(text) is not None:
        progress.saw_log = True
        idle = progress.dump_gap >= _DUMP_GAP and progress.context != "kmemleak"
        if idle and _LOG_WORTH.search(text) is None:
            return 1
    found = _recognise(line.text, progress)
    if found is not None:
        row, layer = found
        taken = 1
        while position + taken < len(lines) and taken < _JOINED_MOST:
            rest = _continuation(lines[position + taken].text, row, progress)
            if rest is None:
                break
            row = rows.join(row, rest)
            taken += 1
        if not progress.accepts(row, line.number):
            progress.foreign.append(Unread(line.number, text))
            return 1
        progress.add(row, line.number, layer)
        return taken
    joined = _joined(lines, position, progress)
    if joined is not None:
        row, layer, taken = joined
        if not progress.accepts(row, line.number):
            progress.foreign.append(Unread(line.number, text))
            return 1
        progress.add(row, line.number, layer)
        return taken
    _foreign(text, line.number, progress)
    return 1


def _recognise(text: str, progress: _Progress) -> tuple[Row, Layer] | None:
    """The first layer of a line that reads as a row."""
    in_dump = progress.dump_gap < _DUMP_GAP
    for layer in peel(text):
        for bare in dict.fromkeys((layer.text, without_tail(layer.text))):
            row = rows.recognise(bare, progress.context)
            if row is None and in_dump and memory_dump.belongs(bare):
                row = Row(LOG, bare)
            if row is not None:
                if row.kind == LOG and (in_dump or memory_dump.begins(bare)):
                    progress.dump_gap = 0
                return row, layer
    return None


def _quoted_text(text: str) -> str:
    """A line without the quotes, blanks and loggers before it."""
    bare = text.strip()
    for layer in peel(text):
        if layer.name not in ("", "quote") and not layer.logged:
            break
        bare = layer.text
    return bare


def _continuation(text: str, row: Row, progress: _Progress) -> str | None:
    bare = _quoted_text(text)
    if not bare or not rows.continues(row, bare) or rows.recognise(bare, None) is not None:
        return None
    return bare


def _joined(
    lines: list[TextLine], position: int, progress: _Progress
) -> tuple[Row, Layer, int] | None:
    """A row that was wrapped: the line with one or more of the next."""
    for layer in peel(lines[position].text):
        if not rows.may_be_half(layer.text):
            continue
        whole = {layer.text}
        for taken in range(2, _JOINED_MOST + 1):
            if position + taken > len(lines):
                break
            rest = _quoted_text(lines[position + taken - 1].text)
            if not rest or command(rest) is not None or time_alone(rest) is not None:
                break
            if rows.recognise(rest, None) is not None:
                break
            # at a blank, which the wrapping ate, or in the middle of a word
            whole = {half + glue + rest for half in whole for glue in (" ", "")}
            for text in sorted(whole):
                row = rows.recognise(text, progress.context)
                if row is not None and not row.is_head:
                    return row, layer, taken
    return None


def _blank(progress: _Progress, number: int) -> None:
    _drop_frames(progress)
    if progress.current is not None and progress.current.kind in ("page_owner", "alloc_traces"):
        # a blank line is the end of a record
        progress.current.lines.append(TextLine(number, ""))


def _drop_frames(progress: _Progress) -> None:
    """Frames that no count came behind."""
    if (
        progress.frames
        and progress.current is not None
        and (progress.current.kind == "page_owner_stacks")
    ):
        first = progress.frames[0]
        progress.current.unread.append(Unread(first.number, first.text))
    progress.frames = []


def _foreign(text: str, number: int, progress: _Progress) -> None:
    """A line that is no row: a time, a command, a title, or somebody's words."""
    progress.dump_gap = min(progress.dump_gap + 1, _DUMP_GAP)
    for layer in peel(text):
        bare = layer.text
        if rows.is_frame(bare):
            progress.frames.append(TextLine(number, bare))
            return
        time = time_alone(bare)
        watched = watch_head(bare)
        asked = command(bare)
        title = _SEPARATOR.fullmatch(bare)
        named = _BARE_COMMAND.fullmatch(bare)
        if time is not None:
            progress.close()
            progress.time = time
            return
        if watched is not None:
            progress.close()
            progress.source, progress.time = watched
            return
        if asked is not None or named is not None:
            progress.close()
            progress.source = asked or bare
            return
        if title is not None:
            # a line of dashes alone may stand within a report, a title may not
            if title["title"]:
                progress.close()
                progress.source = title["title"]
            return
        if is_fence(bare) or (progress.context == "slabinfo" and rows.is_head_piece(bare)):
            return
        if _STACK_ENDS.fullmatch(bare) is not None:
            progress.close()
            return
        if _ELIDED.fullmatch(bare) is not None:
            break
        if layer.logged and layer.seconds is not None:
            return
    if progress.current is not None and not (
        progress.current.kind == "kmemleak" and _LOG_HEAD.match(text) is not None
    ):
        progress.foreign.append(Unread(number, text))
