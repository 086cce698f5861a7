"""The picture of `kleak watch`, in lines."""

from __future__ import annotations

import pytest

from kleak.model.session import Frame, Tally
from kleak.watch.readings import Refresh, Row, Since
from kleak.watch.table import HEADER, block, duration, screen
from kleak.watch.view import View
from tests.frontend.watch.test_readings import AREA, INODE, SIGNALFD, LiveSite

ROWS = (
    Row(INODE, 31, 33976, Tally(-59, -64664), -646.4, 100.0, False),
    Row(AREA, 2, 32768, Tally(2, 32768), 327.7, 60.0, True),
    Row(SIGNALFD, 1000003, 8000024, Tally(), 0.0, 7200.0, False),
)
TITLE = "whole kernel, Linux 6.1.0"


def refresh(rows: tuple[Row, ...] = ROWS, **changed: object) -> Refresh:
    what: dict[str, object] = {
        "since": Since.START,
        "rows": rows,
        "total": Tally(1000036, 8066768),
        "change": Tally(-57, -31896),
        "elapsed_s": 2.0,
        "watched_s": 3723.4,
        "ages_s": 0.0,
        "marks": 0,
        "lost": {},
        "evicted_stacks": 0,
    }
    return Refresh(**{**what, **changed})  # type: ignore[arg-type]


def test_picture_in_80_columns() -> None:
    assert screen(refresh(), View(), TITLE, (), 80, 14) == [
        "kleak watch: whole kernel, Linux 6.1.0",
        "since start, 1:02:03: 1000036 objects, 7.7 MB at 3 sites",
        "in the last 2.0 s: -57 objects, -31.1 kB",
        "trust: nothing was lost",
        "sort: bytes; filter: none",
        "",
        " BYTES   CHANGE   COUNT  CHANGE  RATE/s  AGE ALLOCATOR  SITE",
        "  7.6M     (+0) 1000003    (+0)      +0   2h kmalloc    do_signalfd4 < do_sysca",
        " 33.2k (-63.1k)      31   (-59)    -646   1m recl_cache ext4_alloc_inode [ext4]",
        " 32.0k (+32.0k)       2    (+2)    +328 <60s vmalloc    copy_process < kernel_c",
        "",
        "",
        "",
        "? help  q quit  space freeze  m mark  s save  / filter",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("height", [8, 12, 24, 60])
@pytest.mark.parametrize("view", [View(), View(help=True), View(prompt="x" * 300)])
def test_picture_never_outgrows_the_terminal(width: int, height: int, view: View) -> None:
    many = tuple(
        Row(LiveSite("kmalloc", (Frame(None, f"f{n}" * 50, 4),)), n, n, Tally(), 0.0, 1.0, False)
        for n in range(1, 101)
    )
    lines = screen(refresh(many), view, "t" * 300, ("n" * 300,) * 30, width, height)
    assert all(len(line) < width for line in lines)
    assert len(lines) <= max(height, 12)


def test_what_was_lost_and_dropped_is_said() -> None:
    lost = refresh(lost={"allocations_beyond_max_stacks": 12}, evicted_stacks=900)
    said = (
        "trust: INCOMPLETE, lost: 12 allocations beyond max stacks; "
        "900 stacks without anything outstanding evicted"
    )
    assert screen(lost, View(), TITLE, (), 200, 24)[3] == said
    assert said in block(lost, View(), TITLE, 200, 5)


def test_mark_freeze_old_ages_and_message() -> None:
    lines = screen(
        refresh(since=Since.MARK, marks=2, ages_s=30.0),
        View(frozen=True, message="saved x.kleak"),
        TITLE,
        (),
        80,
        24,
    )
    assert lines[0].startswith("FROZEN. kleak watch: ")
    assert lines[1].startswith("since mark 2, ")
    assert lines[2].endswith("; ages as of 30s ago")
    assert lines[-1] == "saved x.kleak"


def test_filter_order_and_pages() -> None:
    view = View(order="count", inverted=True, filter_text="count<100")
    lines = screen(refresh(), view, TITLE, (), 80, 24)
    assert lines[4] == "sort: count inverted; filter: count<100 (2 of 3 sites)"
    assert [line.split()[2] for line in lines[7:9]] == ["2", "31"]
    many = ROWS * 5
    lines = screen(refresh(many), View(page=9), TITLE, (), 80, 16)
    assert lines[4].endswith("page 2 of 2")


def test_block_has_the_most_and_says_how_many_more() -> None:
    lines = block(refresh(), View(), TITLE, 100, 2)
    assert lines[5] == HEADER
    assert len(lines) == 9
    assert lines[-1] == "... 1 more site"


def test_site_that_is_gone_has_no_age() -> None:
    (line,) = block(
        refresh((Row(AREA, 0, 0, Tally(-2, -32768), -1.0, None, False),)), View(), "", 99, 9
    )[-1:]
    assert line.split()[:6] == ["0", "(-32.0k)", "0", "(-2)", "-1", "-"]


def test_names_cannot_move_the_cursor() -> None:
    evil = Row(LiveSite("kmalloc", (Frame(None, "a\x1b[2Jb", 4),)), 1, 8, Tally(), 0.0, 1.0, False)
    assert not any("\x1b" in line for line in screen(refresh((evil,)), View(), "\x1b", (), 99, 24))


def test_durations() -> None:
    assert [duration(s) for s in (0, 99.9, 100, 5999, 6000, 172799, 172800)] == [
        "0s", "99s", "1m", "99m", "1h", "47h", "2d",
    ]  # fmt: skip
