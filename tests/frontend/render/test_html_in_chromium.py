"""The HTML report in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kleak.model.report import Evidence, Excuse, JudgedSite, Parent, Report, Verdict
from kleak.model.session import Frame, Kernel, Source, Tally, Target, Trust
from kleak.render.html_page import SITES_IN_PAGE, render
from kleak.render.renderer import Capture, Look, Material
from tests.support.chromium import Page, chromium
from tests.support.paths import TOP
from tests.support.samples import session
from tests.support.saved import hostile, material, samples
from tests.support.tools import need

pytestmark = pytest.mark.tools

SAMPLES = samples()
STACKS = 100_000

FLAME = "[...document.querySelectorAll('#flame button')]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium(need("chromium")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    browser.problems.clear()
    browser.requests.clear()
    browser.look()
    return browser


@pytest.fixture
def leaky(page: Page, tmp_path: Path) -> Page:
    show(page, tmp_path, SAMPLES["6.12--leaky"])
    return page


def show(page: Page, directory: Path, what: Material) -> float:
    path = directory / "report.html"
    path.write_text(render(what, Look()))
    return page.open(path)


def status(page: Page) -> str:
    return page.run("document.getElementById('flame-status').textContent")


def names(page: Page, selector: str = "#flame button") -> list[str]:
    return page.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
    )


@pytest.mark.parametrize("sample", list(SAMPLES))
@pytest.mark.parametrize("dark", [False, True])
def test_it_opens_without_errors_and_asks_for_nothing(page, tmp_path, sample, dark):
    page.look(dark=dark)
    show(page, tmp_path, SAMPLES[sample])
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith("data:")] == [
        (tmp_path / "report.html").as_uri()
    ]
    sites = len(SAMPLES[sample].report.sites)
    assert page.run("document.querySelectorAll('#site-list > li').length") == sites
    if sites:
        assert names(page)[0] == "all"


def test_a_hostile_session_runs_nothing(page, tmp_path):
    show(page, tmp_path, material(hostile()))
    page.run("for (const d of document.querySelectorAll('details')) d.open = true")
    page.run(f"for (let i = 0; i < {FLAME}.length; i++) {FLAME}[i].click()")
    assert page.problems == []
    assert page.run("document.title").startswith("kleak: module <script>")
    assert page.run("document.querySelectorAll('img, iframe, object, embed').length") == 0
    assert page.run("document.scripts.length") == 2
    assert "<script>" in page.run("document.querySelector('h1').textContent")


def test_scripts_of_others_are_refused_even_if_they_got_in(page, tmp_path):
    path = tmp_path / "report.html"
    text = render(SAMPLES["6.12--leaky"], Look())
    path.write_text(text.replace("</main>", "<script>document.title='ran'</script></main>"))
    page.open(path)
    assert page.run("document.title") == "kleak: module leaky"
    assert any("Content Security Policy" in problem for problem in page.problems)


def test_search_marks_and_counts(leaky):
    leaky.click("#search")
    leaky.type("FORGET_")
    found = set(names(leaky, "#flame button.hit"))
    assert found == {"forget_rings [leaky]", "forget_buffers.isra.0 [leaky]"}
    sites = [
        site
        for site in SAMPLES["6.12--leaky"].report.sites
        if str(site.frames[0].symbol).startswith("forget_")
    ]
    share = sum(site.outstanding.size_bytes for site in sites) / sum(
        site.outstanding.size_bytes for site in SAMPLES["6.12--leaky"].report.sites
    )
    assert f"{100 * share:.1f} %, match" in status(leaky)
    leaky.press("Escape")
    assert names(leaky, "#flame button.hit") == []


def test_search_finds_files_and_counts_no_stack_twice(leaky):
    leaky.click("input[value=objects]")
    leaky.click("#search")
    leaky.type("buffers.c")
    # buffers_create() calls the others, which are in the same file.
    sites = SAMPLES["6.12--leaky"].report.sites
    total = sum(site.outstanding.count for site in sites)
    found = sum(
        site.outstanding.count
        for site in sites
        if any(frame.source and frame.source.file == "buffers.c" for frame in site.frames)
    )
    assert 0 < found < total
    assert status(leaky).startswith(f"{found} objects, {100 * found / total:.1f} %, match")


def test_zoom_with_the_mouse_and_back(leaky):
    width = leaky.run(f"{FLAME}.find(b => b.textContent.startsWith('lose_')).offsetWidth")
    whole = leaky.run("document.getElementById('flame').clientWidth")
    assert width < whole / 10
    node = leaky.run(f"{FLAME}.find(b => b.textContent.startsWith('lose_')).dataset.node")
    leaky.click(f"#flame button[data-node='{node}']")
    box = f"document.querySelector(\"#flame button[data-node='{node}']\")"
    assert leaky.run(f"{box}.offsetWidth") == whole
    assert not any("forget_rings" in name for name in names(leaky))
    assert leaky.run(f"document.activeElement === {box}")
    leaky.click("#reset")
    assert any("forget_rings" in name for name in names(leaky))
    assert leaky.run("document.getElementById('reset').disabled")


def test_the_flame_graph_by_keyboard(leaky):
    leaky.run(f"{FLAME}[0].focus()")
    focus = "document.activeElement.textContent"
    leaky.press("ArrowDown")
    assert leaky.run(focus) == "entry_SYSCALL_64_after_hwframe"
    for _ in range(7):
        leaky.press("ArrowDown")
    assert leaky.run(focus) == "buffers_create [leaky]"
    leaky.press("ArrowRight")
    first = leaky.run("document.activeElement.dataset.node")
    leaky.press("Enter")
    whole = leaky.run("document.getElementById('flame').clientWidth")
    assert leaky.run("document.activeElement.offsetWidth") == whole
    assert leaky.run("document.activeElement.dataset.node") == first
    leaky.press("ArrowUp")
    assert leaky.run(focus) == "do_one_initcall"
    leaky.press("Escape")
    assert leaky.run("document.getElementById('reset').disabled")
    assert leaky.run(focus) == "all"


def test_everything_that_can_be_clicked_can_be_reached_by_keyboard(leaky):
    reachable = leaky.run(
        "[...document.querySelectorAll('a, button, input, summary')]"
        ".filter(e => e.tabIndex >= 0 && !e.disabled && !e.hidden).length"
    )
    # Of the flame graph one box is, and the arrow keys lead to the others.
    assert leaky.run(f"{FLAME}.filter(b => b.tabIndex === 0).length") == 1
    assert reachable >= 4 + len(SAMPLES["6.12--leaky"].report.sites) + 4


def test_objects_instead_of_bytes(leaky):
    assert status(leaky).startswith("all: 1")
    leaky.click("input[value=objects]")
    count = sum(site.outstanding.count for site in SAMPLES["6.12--leaky"].report.sites)
    assert status(leaky) == f"all: {count} objects, 100.0 %"


def test_nothing_is_wider_than_a_phone(page, tmp_path):
    page.look(width=360, height=740)
    for sample in ("6.12--leaky", "merged", "hostile"):
        show(page, tmp_path, SAMPLES[sample])
        page.run("for (const d of document.querySelectorAll('details')) d.open = true")
        assert page.run("document.documentElement.scrollWidth") <= 360, sample


def test_print_opens_every_site(leaky):
    leaky.run("dispatchEvent(new Event('beforeprint'))")
    assert leaky.run("document.querySelectorAll('details:not([open])').length") == 0


def test_charts_show_the_samples_and_the_cycles(leaky):
    capture = SAMPLES["6.12--leaky"].captures[0].session
    dots = len(capture.circumstances.samples)
    assert leaky.run("document.querySelectorAll('.chart .dot').length") == dots == 16
    assert leaky.run("document.querySelectorAll('.mark.loaded').length") == len(capture.cycles)
    assert leaky.run("document.querySelectorAll('.mark.unloaded').length") == len(capture.cycles)
    rows = leaky.run("[...document.querySelectorAll('.memory tbody th')].map(e => e.textContent)")
    assert sorted(rows) == sorted(capture.circumstances.samples[0].meminfo_bytes)
    bars = "document.querySelectorAll('#site-list > li:first-child .bars rect').length"
    assert leaky.run(bars) == len(capture.cycles)


# --- very many stacks


def many() -> Material:
    """100,000 sites of 12 to 27 frames, in a tree as a whole kernel's stacks make it."""
    frames = [
        Frame(None, f"function_{number}", number, Source(f"file_{number % 97}.c", number))
        for number in range(4000)
    ]
    sites = []
    for number in range(STACKS):
        depth = 12 + number % 16
        # The outer frames are those of few callers, the inner ones differ.
        stack = tuple(
            frames[(number // 3**level * 7 + level * 131) % 4000] for level in range(depth)
        )
        held = Tally(1 + number % 11, 64 * (1 + number % 211))
        sites.append(
            JudgedSite(
                number + 1,
                Verdict.POSSIBLE,
                50.0,
                "kmalloc",
                held,
                (held,),
                stack,
                (Evidence("growth", f"grew by {number % 7}", 0.5),),
            )
        )
    report = Report(Kernel("6.12.1", "x86_64"), Target("symbols", "*"), 1, Trust(), tuple(sites))
    return Material(report, (Capture("many.kleak", session(cycles=1), report, ()),))


def test_a_hundred_thousand_stacks_open_and_can_be_searched(page, tmp_path):
    what = many()
    path = tmp_path / "many.html"
    path.write_text(render(what, Look()))
    assert len(what.report.sites) == STACKS
    seconds = page.open(path)
    drawn = len(names(page))
    print(f"{path.stat().st_size / 1e6:.1f} MB, open in {seconds:.2f} s, {drawn} boxes")
    assert page.problems == []
    assert drawn > 100
    page.run(
        "document.getElementById('search').value = 'function_77';"
        "document.getElementById('search').dispatchEvent(new Event('input'))"
    )
    assert "match" in status(page)
    page.run("document.getElementById('more').click()")
    assert page.run("document.querySelectorAll('#site-list > li').length") == 2 * SITES_IN_PAGE


def test_sites_beyond_the_page_have_their_stacks(page, tmp_path):
    show(page, tmp_path, many())
    page.run("document.getElementById('more').click()")
    page.run("document.querySelectorAll('#site-list > li')[205].querySelector('summary').click()")
    page.run("new Promise(requestAnimationFrame)")
    item = "document.querySelectorAll('#site-list > li')[205]"
    shown = page.run(f"[...{item}.querySelectorAll('.stack code')].map(e => e.textContent)")
    site = many().report.sites[205]
    assert shown == [frame.symbol for frame in site.frames]
    assert f"grew by {205 % 7}" in page.run(f"{item}.textContent")


def test_sites_beyond_the_page_say_why_they_are_no_findings(page, tmp_path):
    what = many()
    report = what.report
    sites = list(report.sites)
    sites[205] = replace(sites[205], parent=Parent(205, "pointers", "<b>points</b> to it"))
    sites[206] = replace(sites[206], excuse=Excuse("baseline", "known"))
    show(page, tmp_path, Material(replace(report, sites=tuple(sites)), what.captures))
    page.run("document.getElementById('more').click()")
    items = "document.querySelectorAll('#site-list > li')"
    for number in (205, 206):
        page.run(f"{items}[{number}].querySelector('summary').click()")
    page.run("new Promise(requestAnimationFrame)")
    assert page.run(f"[204, 205, 206].map(i => {items}[i].className)") == ["", "hangs", "excused"]
    assert names(page, "#site-list .tag") == ["hangs on 205", "does not count"]
    assert names(page, "#site-list .standing") == [
        "hangs on 205: <b>points</b> to it",
        "does not count: known",
    ]


# --- colours


def luminance(colour: str) -> float:
    parts = [int(part * 2 if len(colour) == 4 else part, 16) / 255 for part in channels(colour)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def channels(colour: str) -> list[str]:
    step = 1 if len(colour) == 4 else 2
    return [colour[i : i + step] for i in range(1, len(colour), step)]


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_can_be_read_on_its_ground(scheme):
    style = (TOP / "frontend/render/html/page.css").read_text()
    block = style.split(":root {")[1 + scheme].split("}")[0]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", block))
    pairs = [("ink", "paper"), ("ink", "shade"), ("ink", "flame"), ("ink", "flame-module")]
    pairs += [("hit-ink", "flame-hit"), ("soft", "paper"), ("link", "paper")]
    pairs += [(verdict.label, "paper") for verdict in Verdict]
    for text, ground in pairs:
        light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        # WCAG 2, level AA.
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_every_class_of_the_script_has_a_style():
    style = (TOP / "frontend/render/html/page.css").read_text()
    for verdict in Verdict:
        assert f".verdict-{verdict.label}" in style
