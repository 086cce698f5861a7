"""The report as one HTML file that needs nothing else: no network, no other file.

The page is html/page.html.jinja with html/page.css and html/page.js in it. Strings of the kernel
are escaped by the template engine, or travel in a block of JSON; and the page's security policy
lets no script run but its own, which it names by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from kleak.model.report import JudgedSite, Report, Verdict
from kleak.render import html_charts
from kleak.render.escape import printable
from kleak.render.html_flames import Flames
from kleak.render.renderer import Look, Material, Renderer
from kleak.render.sentences import closing, day, growth, kernels, standing, totals, trust_line
from kleak.render.stack_text import function, whole_stack
from kleak.units import size
from kleak.wording import counted, plural

SITES_IN_PAGE = 200
"""Sites that are in the page as HTML; the others are made by its script when they are wanted."""


def render(material: Material, look: Look) -> str:
    """The whole page."""
    report = material.report
    flames = Flames()
    leaves = [flames.add(site) for site in report.sites]
    strings: dict[str, int] = {}
    rest = [
        _row(site, leaf, strings)
        for site, leaf in zip(report.sites[SITES_IN_PAGE:], leaves[SITES_IN_PAGE:], strict=True)
    ]
    data = {**flames.data(), "sites": rest, "strings": list(strings)}
    script = _asset("page.js")
    subject = f"{report.target.kind} {report.target.name}"
    hidden = len(rest)
    page: str = _template().render(
        title=printable(f"kleak: {subject}"),
        subject=printable(subject),
        surest=_surest(report),
        closing=printable(closing(report)),
        facts=_facts(material),
        complete=report.trust.complete,
        trust=printable(trust_line(report.trust, verbose=True)),
        notes=[printable(note) for note in report.trust.notes],
        merged=_merged(report),
        totals=totals(report) if report.sites else "",
        sites=[_site(site) for site in report.sites[:SITES_IN_PAGE]],
        noscript=f"{hidden} more sites and the flame graph need JavaScript.",
        timelines=html_charts.timelines(material.captures),
        memory=html_charts.memory(material.captures),
        footer=_footer(material),
        style=_asset("page.css"),
        script=script,
        script_hash=_hash(script),
        data=_json(data),
    )
    return page


@cache
def _template() -> Any:
    # Late: the engine takes 40 ms to import, and one format of many needs it.
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(_asset("page.html.jinja"))


@cache
def _asset(name: str) -> str:
    return (files("kleak.render") / "html" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(data: Any) -> str:
    """JSON that may stand in a script element: nothing in it ends that, or begins a comment."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _surest(report: Report) -> str:
    counting = (site.verdict for site in report.every_site if site.excuse is None)
    return max(counting, default=Verdict.RETAINED).label


def _facts(material: Material) -> list[tuple[str, str]]:
    report = material.report
    about = material.captures[-1].session.circumstances
    facts = [
        ("kernel", kernels(report)),
        ("cycles", str(report.cycles)),
        ("parameters", " ".join(report.target.parameters)),
        ("version", report.target.version),
        ("build-id", report.target.build_id),
        ("file", report.target.path),
        ("host", about.host),
        ("date", None if about.started_at is None else f"{day(about.started_at)} (UTC)"),
    ]
    return [(name, printable(value)) for name, value in facts if value]


def _merged(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            printable(one.name),
            printable(one.kernel.release),
            printable((one.build_id or "")[:12]),
            "" if one.started_at is None else day(one.started_at),
            str(one.cycles),
            "complete" if one.complete else "INCOMPLETE",
        )
        for one in report.merged
    ]


def _held(site: JudgedSite) -> str:
    count = site.outstanding.count
    objects = plural(count, "object")
    return f"{objects}, {size(site.outstanding.size_bytes)}"


def _site(site: JudgedSite) -> dict[str, Any]:
    first = site.frames[0]
    place = function(first)
    if first.source is not None:
        place += f" {first.source.file}:{first.source.line}"
    allocators = len(site.allocator_frames)
    return {
        "rank": site.rank,
        "verdict": site.verdict.label,
        "score": f"{site.score:.1f}",
        "allocator": printable(site.allocator),
        "place": printable(place),
        "held": _held(site),
        "growth": _growth(site),
        "kind": _kind(site),
        "standing": [(mark, printable(says)) for mark, says in standing(site)],
        "frames": [
            {
                "text": f"{function(frame)}"
                + (f" +{frame.offset:#x}" if frame.symbol is not None else ""),
                "place": printable(f"{frame.source.file}:{frame.source.line}")
                if frame.source
                else "",
                "allocator": position < allocators,
            }
            for position, frame in enumerate(whole_stack(site))
        ],
        "evidence": [
            {
                "weight": f"{item.weight:+.2f}",
                "side": "for" if item.weight > 0 else "against" if item.weight < 0 else "open",
                "witness": printable(item.witness),
                "says": printable(item.says),
            }
            for item in site.evidence
        ],
        **html_charts.bars(site.per_cycle),
    }


def _kind(site: JudgedSite) -> str:
    """The classes of a site in page.css."""
    hangs, excused = site.parent is not None, site.excuse is not None
    return " ".join(["hangs"] * hangs + ["excused"] * excused)


def _growth(site: JudgedSite) -> str:
    text = growth(site.per_cycle)
    return "" if text == "-" else text


def _row(site: JudgedSite, leaf: tuple[int, int], strings: dict[str, int]) -> list[Any]:
    """A site that is not in the page, as page.js takes it."""
    evidence = [
        strings.setdefault(
            printable(f"{item.weight:+.2f} {item.witness}: {item.says}"), len(strings)
        )
        for item in site.evidence
    ]
    return [
        site.rank,
        site.verdict.label,
        f"{site.score:.1f}",
        printable(site.allocator),
        _held(site),
        _growth(site),
        list(leaf),
        evidence,
        _kind(site),
        [[mark, printable(says)] for mark, says in standing(site)],
    ]


def _footer(material: Material) -> str:
    about = material.captures[-1].session.circumstances
    version = "" if about.kleak_version is None else f" {about.kleak_version}"
    lost = ", ".join(counted(material.report.trust.lost))
    return printable(f"Captured with kleak{version}." + (f" Lost: {lost}." if lost else ""))


RENDERER = Renderer("html", (".html", ".htm"), "one page, with flame graph and charts", render)
