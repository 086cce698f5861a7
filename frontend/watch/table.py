"""What `kleak watch` shows as lines of text: for a terminal, or plain blocks for a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from kleak.model.session import Frame, Tally
from kleak.render.escape import printable
from kleak.units import size
from kleak.watch.readings import Refresh, Row, Since, name_of, parse_filter, sort
from kleak.watch.view import ORDER_KEYS, View
from kleak.wording import counted, either, plural

HEADER = f"{'BYTES':>6} {'CHANGE':>8} {'COUNT':>7} {'CHANGE':>7} {'RATE/s':>7}  AGE ALLOCATOR  SITE"
KEYS = "? help  q quit  space freeze  m mark  s save  / filter"
_SHORT_NAMES = {"reclaimable_cache": "recl_cache"}
_LEAST_ROWS = 3

HELP = (
    "What is outstanding: allocated since the watch began, or since a mark, and",
    "not freed yet. So BYTES and COUNT are the change since then; CHANGE is since",
    "the last refresh, RATE the growth in bytes a second over the last minute, AGE",
    "that of the oldest object (<: no older than). Much of it is simply in use.",
    "",
    "  m      mark: show what is allocated from now on and still outstanding",
    "  t      turn between since the start and since the last mark",
    "  space  freeze the picture, and go on",
    "  " + "  ".join(f"{key} {order}" for key, order in list(ORDER_KEYS.items())[:4]),
    "  " + "  ".join(f"{key} {order}" for key, order in list(ORDER_KEYS.items())[4:]),
    "         sort by this, most first; i turns the order round",
    "  /      filter: bytes>1M count>=17 change>0 age>60 function=do_* module=ext4",
    "         allocator=vmalloc, or a word in the name of a function on the stack",
    "  n p    next and previous page",
    "  s      save a session, for kleak report; marks become its cycles",
    "  q      quit",
)


def screen(
    refresh: Refresh, view: View, title: str, notes: Sequence[str], width: int, height: int
) -> list[str]:
    """The lines of a terminal of ``width`` columns and ``height`` lines; the last may be a prompt.

    ``title`` names what is watched, ``notes`` are what this kernel does not let be seen.
    """
    if view.help:
        lines = [*HELP, *(f"note: {note}" for note in notes)][: height - 1]
        return [_cut(line, width) for line in (*lines, "any key goes back")]
    head = _head(refresh, title, frozen=view.frozen)
    room = max(_LEAST_ROWS, height - len(head) - 4)
    rows = _chosen(refresh, view)
    pages = max(1, -(-len(rows) // room))
    page = min(view.page, pages - 1)
    shown = rows[page * room : (page + 1) * room]
    body = [
        *head,
        _choice(refresh, view, len(rows), page, pages),
        "",
        HEADER,
        *(_line(row, width) for row in shown),
        *[""] * (room - len(shown)),
        f"filter: {view.prompt}_" if view.prompt is not None else view.message or KEYS,
    ]
    return [_cut(line, width) for line in body]


def block(refresh: Refresh, view: View, title: str, width: int, most: int) -> list[str]:
    """The lines of one refresh in a pipe, with at most ``most`` sites."""
    rows = _chosen(refresh, view)
    lines = [
        *_head(refresh, title, frozen=False),
        _choice(refresh, view, len(rows), 0, 1),
        HEADER,
        *(_line(row, width) for row in rows[:most]),
    ]
    more = len(rows) - most
    if more > 0:
        lines.append(f"... {plural(more, 'more site')}")
    return [_cut(line, width) for line in lines]


def _head(refresh: Refresh, title: str, *, frozen: bool) -> list[str]:
    began = "start" if refresh.since is Since.START else f"mark {refresh.marks}"
    sites = sum(row.objects > 0 for row in refresh.rows)
    state = "FROZEN. " if frozen else ""
    change = "first look"
    if refresh.elapsed_s is not None:
        change = f"in the last {refresh.elapsed_s:.1f} s: {_tally(refresh.change, sign='+')}"
    if refresh.ages_s > 2 * (refresh.elapsed_s or 0.0) + 1:
        change += f"; ages as of {duration(refresh.ages_s)} ago"
    return [
        f"{state}kleak watch: {title}",
        f"since {began}, {clock(refresh.watched_s)}: {_tally(refresh.total)} at "
        f"{plural(sites, 'site')}",
        change,
        trust_line(refresh),
    ]


def trust_line(refresh: Refresh) -> str:
    """What was lost, and what was dropped to make room."""
    lost = counted(dict(refresh.lost))
    parts = [f"INCOMPLETE, lost: {', '.join(lost)}" if lost else "nothing was lost"]
    if refresh.evicted_stacks:
        parts.append(f"{refresh.evicted_stacks} stacks without anything outstanding evicted")
    return f"trust: {'; '.join(parts)}"


def _choice(refresh: Refresh, view: View, rows: int, page: int, pages: int) -> str:
    order = view.order + (" inverted" if view.inverted else "")
    text = f"sort: {order}; filter: {view.filter_text or 'none'}"
    if rows != len(refresh.rows):
        text += f" ({rows} of {len(refresh.rows)} sites)"
    return text + (f"; page {page + 1} of {pages}" if pages > 1 else "")


def _chosen(refresh: Refresh, view: View) -> list[Row]:
    condition = parse_filter(view.filter_text)
    return sort(filter(condition, refresh.rows), view.order, inverted=view.inverted)


def _line(row: Row, width: int) -> str:
    change = f"({_compact(row.change.size_bytes, sign='+')})"
    number = f"({row.change.count:+})"
    age = "-" if row.age_s is None else ("<" if row.age_is_bound else "") + duration(row.age_s)
    allocator = _SHORT_NAMES.get(row.site.allocator, row.site.allocator)
    return (
        f"{_compact(row.size_bytes):>6} {change:>8} {row.objects:>7} {number:>7} "
        f"{_compact(round(row.rate), sign='+'):>7} {age:>4} {allocator:<10} "
        f"{_stack(row.site.callers, width)}"
    )


def _stack(frames: Sequence[Frame], width: int) -> str:
    """The functions from the site outwards, as many as may be seen."""
    text = ""
    for frame in frames:
        module = f" [{frame.module}]" if frame.module is not None else ""
        text += f"{' < ' if text else ''}{name_of(frame)}{module}"
        if len(text) >= width:
            break
    return text


def _compact(size_bytes: int, *, sign: str = "") -> str:
    """A size in six characters: "384", "3.8k", "120M"; one more with its sign."""
    text = size(size_bytes).removesuffix("B").replace(" ", "")
    return f"+{text}" if sign and size_bytes >= 0 else text


def _tally(tally: Tally, *, sign: str = "") -> str:
    held = size(tally.size_bytes)
    plus = "+" if sign and tally.size_bytes >= 0 else ""
    return f"{tally.count:{sign}} {either(tally.count, 'object', 'objects')}, {plus}{held}"


def duration(seconds: float) -> str:
    """A time in three characters or so: "12s", "59m", "23h", "99d"."""
    for unit, length, most in (("s", 1, 100), ("m", 60, 100), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{int(seconds / length)}{unit}"
    return f"{int(seconds / 86400)}d"


def clock(seconds: float) -> str:
    """A time as "0:03:12", hours and all."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _cut(line: str, width: int) -> str:
    # The last column stays free: some terminals wrap as soon as it is written.
    return printable(line)[: width - 1].rstrip()
