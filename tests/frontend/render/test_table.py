import re
from dataclasses import replace
from pathlib import Path

import pytest

from kleak.analysis.judge import judge
from kleak.model.report import Verdict
from kleak.model.session import Frame, Tally, Trust
from kleak.model.witnesses import absent
from kleak.render.sentences import growth, trust_line
from kleak.render.table import HEADERS, render, rows
from kleak.wording import frame_text
from tests.support.paths import TOP
from tests.support.samples import KERNFS, LEAK, frame, regions_of, session, site, stack

GOLDEN = Path(__file__).parent / "data"
LONG = "a_function_with_a_name_" * 6 + "end"
AREA = stack(
    "alloc_vmap_area+0x8f <- __get_vm_area_node+0xe5 <- __vmalloc_node_range_noprof+0xf1 <- "
    "vmalloc_noprof+0x5f <- leak_area+0x20 [leaky] leaky.c:44 <- leaky_init+0x50 [leaky] leaky.c:31"
)


def typical():
    area = site([2] * 5, frames=AREA, allocator="vmalloc", object_bytes=16384, sampled=3)
    return judge(
        session(
            area,
            site([3] * 5),
            site([5] * 5, frames=KERNFS, allocator="kmem_cache"),
            site([7, 0, 0, 0, 0], frames=stack("kmalloc_trace+1 <- probe+1 <- f+1 [leaky]")),
            regions=regions_of(area),
        )
    )


# --- rows


def cells(row):
    return dict(zip(HEADERS, row.cells, strict=True))


def test_row_of_a_leak():
    (row,) = rows(judge(session(site([3] * 5))))
    assert cells(row) == {
        "rank": "1",
        "verdict": "confirmed",
        "score": "97.6",
        "allocator": "kmalloc",
        "count": "15",
        "size": "1.9 kB",
        "growth": "+3/cycle",
    }
    assert row.frames == (
        "leak_it+0x1c [leaky] leaky.c:12",
        "leaky_init+0x40 [leaky] leaky.c:30",
        "do_one_initcall+0x58",
        "... 4 more frames",
    )
    assert row.reasons[0].startswith("for: +3 in every one of 5 cycles; allocated by a call in")


def test_exact_sizes():
    (row,) = rows(judge(session(site([3] * 5))), exact=True)
    assert cells(row)["size"] == "1920 B"


def test_frame_of_the_module_is_shown_however_deep_it_lies():
    (row,) = rows(judge(session(site([3] * 5, frames=KERNFS, allocator="kmem_cache"))))
    assert row.frames == (
        "__kernfs_new_node+0x60",
        "kernfs_new_node+0x50",
        "... 5 more frames",
        "leaky_init+0x60 [leaky]",
        "... 1 more frame",
    )


def test_verbose_row_has_the_whole_stack_and_every_weight():
    report = judge(session(site([3] * 5)))
    (row,) = rows(report, verbose=True)
    assert len(row.frames) == len(LEAK)
    assert row.frames[0] == "__kmalloc_cache_noprof+0x11e  (allocator)"
    assert row.frames[-1] == "entry_SYSCALL_64_after_hwframe+0x76"
    assert len(row.reasons) == len(report.sites[0].evidence)
    shown = sum(float(reason.split()[0]) for reason in row.reasons)
    assert shown == pytest.approx(sum(item.weight for item in report.sites[0].evidence))


def test_reasons_tell_what_speaks_against():
    (row,) = rows(judge(session(site([9, 0, 0], frames=KERNFS))))
    assert "against: only the first cycle left anything" in row.reasons[0]


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (None, "-"),
        ([5], "-"),
        ([3, 3], "+3/cycle"),
        ([3] * 40, "+3/cycle"),
        ([4, 2, 1, 0, 0], "4,2,1,0,0"),
        ([3, 4, 2, 5, 3, 9, 4], "~+4/cycle"),
        ([0, 0, 3, 0, 0, 3, 0, 0, 3, 0], "+9 in 3 of 10"),
    ],
)
def test_growth(counts, text):
    assert growth(None if counts is None else [Tally(count) for count in counts]) == text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (frame("f+0x1c [leaky] drivers/x/leaky.c:12"), "f+0x1c [leaky] drivers/x/leaky.c:12"),
        (frame("do_one_initcall+0x58"), "do_one_initcall+0x58"),
        (Frame("leaky", None, 0x1C), ".text+0x1c [leaky]"),
        (Frame(None, None, 0xFFFFFFFFC0A9201F), "0xffffffffc0a9201f"),
    ],
)
def test_frame_text(shown, text):
    assert frame_text(shown) == text


# --- text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("table-80", {"width": 80}),
        ("table-120-verbose", {"width": 120, "verbose": True}),
    ],
)
def test_golden(name, options):
    text = render(typical(), **options)
    golden = GOLDEN / f"{name}.txt"
    expected = golden.read_text() if golden.exists() else ""
    if text != expected:
        produced = TOP / "build" / golden.name
        produced.parent.mkdir(exist_ok=True)
        produced.write_text(text)
        pytest.fail(f"differs; to accept: cp {produced.resolve()} {golden}\n{text}")


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("verbose", [False, True])
def test_nothing_is_wider_than_the_terminal(width, verbose):
    for line in render(typical(), width=width, verbose=verbose).splitlines():
        assert len(line) <= width
        assert line == line.rstrip()


def test_long_symbols_are_kept_whole():
    frames = (LEAK[0], Frame("leaky", LONG, 28))
    text = render(judge(session(site([3] * 5, frames=frames))), width=80)
    assert f"      {LONG}+0x1c [leaky]\n" in text


def test_trust_line_comes_first_and_names_losses_and_absent_witnesses():
    captured = session(site([3] * 5), lost={"missed_kfree_events": 7, "stacks": 2}, regions=None)
    trust = Trust(
        captured.trust.lost,
        witnesses={"kmemleak": absent("not in this kernel")},
        notes=("a note",),
    )
    text = render(judge(replace(captured, trust=trust)), width=200)
    head = text.split("\n\n")[0].splitlines()
    assert head[1].startswith("trust: INCOMPLETE; lost: 7 missed kfree events, 2 stacks; ")
    assert "kmemleak (not in this kernel)" in head[1]
    assert "vmallocinfo (not read with real addresses)" in head[1]
    assert head[2] == "note: a note"


def test_witnesses_that_are_absent_for_one_reason_share_it():
    states = {"slabinfo": absent("no"), "kmemleak": absent("off"), "allocinfo": absent("no")}
    line = trust_line(Trust(witnesses=states), verbose=False)
    assert line.endswith("; absent: allocinfo and slabinfo (no), kmemleak (off)")


def test_complete_trust_says_so():
    assert "trust: complete; nothing was lost; " in render(typical())


def test_complete_is_of_what_the_kernel_shows():
    heard = {"kfree": "raw tracepoint", "kernel headers": "/usr/src/linux"}
    assert trust_line(Trust(means=heard), verbose=False) == "trust: complete; nothing was lost"
    unheard = Trust(means=heard | {"kvfree_call_rcu": "absent: kprobe of it: refused"})
    assert trust_line(unheard, verbose=False) == (
        "trust: complete; nothing was lost of what this kernel shows (see the notes)"
    )
    assert "kvfree_call_rcu: absent: kprobe of it: refused" in trust_line(unheard, verbose=True)


def test_totals_by_verdict():
    text = render(typical(), width=200)
    assert (
        "totals: 2 confirmed (25 objects, 162 kB), 1 possible (25 objects, 3.1 kB), "
        "1 retained (7 objects, 896 B)\n"
    ) in text


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (typical(), "leaky leaks: 162 kB from 2 places in 5 cycles. Start with rank 1."),
        (judge(session(site([3]))), "leaky very probably leaks: 384 B from 1 place in 1 cycle."),
        (
            judge(session(site([3], frames=KERNFS))),
            "Three cycles or more would show whether it grows. Not asked: growth.",
        ),
    ],
)
def test_closing_sentence(report, sentence):
    assert sentence in " ".join(render(report, width=200).split())


def test_no_sites():
    text = render(judge(session(cycles=5)))
    assert "No allocation in the scope of leaky was outstanding after 5 cycles." in text
    assert "rank" not in text
    assert "missed" not in text


def test_no_sites_but_losses_does_not_look_clean():
    lossy = session(cycles=5, lost={"missed frees": 7}, regions=None)
    text = " ".join(render(judge(lossy)).split())
    assert "INCOMPLETE" in text
    assert "a leak may have been missed" in text
    assert "Not asked: vmallocinfo." in text


def test_color_only_when_asked_and_changes_nothing_else():
    plain, colored = render(typical()), render(typical(), color=True)
    assert "\x1b" not in plain
    assert "\x1b[1;31m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


@pytest.mark.parametrize("verbose", [False, True])
def test_control_characters_never_reach_the_terminal(verbose):
    evil = "x\x1b]0;owned\x07\x1b[2J\r\n\x9b\u202e\x7f"
    captured = session(site([3] * 5, frames=(LEAK[0], Frame(evil, evil, 1))), lost={evil: 1})
    captured = replace(
        captured,
        target=replace(captured.target, name=evil, version=evil, build_id=evil),
        trust=replace(
            captured.trust, witnesses={evil: absent(evil)}, repaired={evil: 1}, notes=(evil,)
        ),
    )
    text = render(judge(captured), verbose=verbose)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\x1b]0;owned\\x07" in text


def test_every_verdict_has_a_style():
    report = typical()
    for verdict in Verdict:
        marked = replace(report, sites=(replace(report.sites[0], verdict=verdict),))
        assert "\x1b[" in render(marked, color=True)
