"""The report for a mailing list or an issue: each finding, its stack, how to see it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from kleak.model.report import JudgedSite, Report
from kleak.model.session import Frame
from kleak.render.escape import printable
from kleak.render.renderer import Look, Material, Renderer
from kleak.render.sentences import growth, kernels, places, standing
from kleak.render.stack_text import whole_stack
from kleak.units import size
from kleak.wording import counted, plural

SHOWN_BELOW = 20


def render(material: Material, look: Look) -> str:
    """Markdown that reads well as plain text too. With ``look.verbose`` all sites at length;
    else those that count and are at ``look.fail_on`` or surer, and the rest in a table.
    """
    report = material.report
    if report.grouped_by is not None:
        return _head(report) + _groups(report)
    at_length: list[JudgedSite] = []
    rest: list[JudgedSite] = []
    for site in report.sites:
        guilty = site.verdict >= look.fail_on and site.excuse is None
        (at_length if look.verbose or guilty else rest).append(site)
    parts = [_head(report)]
    parts += [_finding(site) for site in at_length]
    if rest:
        parts.append(_others(rest))
    parts.append(_again(material))
    return "\n".join(parts)


def _head(report: Report) -> str:
    target = report.target
    cycles = plural(report.cycles, "cycle")
    lines = [
        f"# {_inline(target.name)}: {_summary(report)}",
        "",
        f"- kernel: {_code(kernels(report))}",
        f"- target: {_inline(target.kind)} {_code(target.name)}, {cycles}",
    ]
    if target.version is not None:
        lines.append(f"- module version: {_code(target.version)}")
    if target.build_id is not None:
        lines.append(f"- module build-id: {_code(target.build_id)}")
    lost = ", ".join(counted(report.trust.lost))
    lines.append(
        f"- trace: {'complete' if report.trust.complete else f'INCOMPLETE, lost: {_inline(lost)}'}"
    )
    lines += [f"- note: {_inline(note)}" for note in report.trust.notes]
    return "\n".join(lines) + "\n"


def _summary(report: Report) -> str:
    if not report.sites:
        return "nothing outstanding"
    counting = [site for site in report.every_site if site.excuse is None]
    if not counting:
        return "nothing outstanding that counts"
    surest = max(site.verdict for site in counting)
    sites = [site for site in counting if site.verdict is surest]
    held = size(sum(site.outstanding.size_bytes for site in sites))
    return f"{surest.label}: {held} outstanding from {places(sites)}"


def _finding(site: JudgedSite) -> str:
    held = site.outstanding
    objects = plural(held.count, "object")
    said = standing(site)
    marks = "".join(f", {mark}" for mark, _ in said)
    # A child is a section of its parent's.
    level = "##" if site.parent is None else "###"
    lines = [
        f"{level} {site.rank}. {_inline(_place(site.frames[0]))}: {site.verdict.label} "
        f"(score {site.score:.1f}){marks}",
        "",
        *(f"It {mark}: {_inline(says)}.\n" for mark, says in said),
        f"{objects}, {size(held.size_bytes)}, by {_inline(site.allocator)}; "
        f"per cycle: {growth(site.per_cycle)}.",
        "",
        "```",
        "Call Trace:",
        *(f" {_trace_line(frame)}" for frame in whole_stack(site)),
        "```",
        "",
        *(
            f"- {item.weight:+.2f} {_inline(item.witness)}: {_inline(item.says)}"
            for item in site.evidence
        ),
    ]
    return "\n".join(lines) + "\n"


def _others(sites: list[JudgedSite]) -> str:
    rows = [
        (
            str(site.rank),
            site.verdict.label,
            str(site.outstanding.count),
            size(site.outstanding.size_bytes),
            _code(_place(site.frames[0])),
            "; ".join(f"{mark}: {_inline(says)}" for mark, says in standing(site)),
        )
        for site in sites[:SHOWN_BELOW]
    ]
    text = "## Also outstanding\n\n" + _table(
        ("rank", "verdict", "objects", "size", "allocated in", "standing"), rows
    )
    if len(sites) > SHOWN_BELOW:
        text += f"\n{len(sites) - SHOWN_BELOW} more are left out.\n"
    return text


def _groups(report: Report) -> str:
    rows = [
        (
            _code(group.key),
            str(group.sites),
            str(group.outstanding.count),
            size(group.outstanding.size_bytes),
            group.verdict.label,
        )
        for group in report.groups
    ]
    return "\n" + _table((str(report.grouped_by), "sites", "objects", "size", "surest"), rows)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _again(material: Material) -> str:
    report = material.report
    target = report.target
    about = material.captures[0].session.circumstances
    cycles = about.planned_cycles or report.cycles
    if target.kind == "module":
        first, *others = target.name.split(",")
        words = [target.path or first, *target.parameters]
        words += [word for name in others for word in ("--module", name)]
        words += ["--cycles", str(cycles // (1 + len(others)))]
        command = "kleak module " + shlex.join(printable(word) for word in words)
    else:
        scope = " ".join(
            f"--module {shlex.quote(printable(name[1:-1]))}"
            if name.startswith("[")
            else f"--scope {shlex.quote(printable(name))}"
            for name in about.scope
        )
        command = f"kleak run {scope} --repeat {cycles} -- COMMAND"
    version = "" if about.kleak_version is None else f" {about.kleak_version}"
    return f"## To reproduce\n\nWith kleak{_inline(version)}, as root:\n\n    {command}\n"


def _place(frame: Frame) -> str:
    source = "" if frame.source is None else f" at {frame.source.file}:{frame.source.line}"
    return f"{_symbol(frame)}{source}"


def _symbol(frame: Frame) -> str:
    if frame.symbol is not None:
        return frame.symbol
    return f"{frame.offset:#x}"


def _trace_line(frame: Frame) -> str:
    """A frame as scripts/decode_stacktrace.sh prints it: ``symbol (file:line) module``.

    Without a source line it is as the kernel itself prints it: ``symbol+0x1c [module]``. The
    size of the function, which the kernel adds, is not known here.
    """
    if frame.source is not None and frame.symbol is not None:
        text = f"{frame.symbol} ({frame.source.file}:{frame.source.line})"
        text += "" if frame.module is None else f" {frame.module}"
    else:
        text = _symbol(frame)
        text += f"+{frame.offset:#x}" if frame.symbol is not None else ""
        text += "" if frame.module is None else f" [{frame.module}]"
    return printable(text).replace("```", "'''")


def _inline(text: str) -> str:
    """Text that no reader takes for markup: neither Markdown's nor HTML's."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", printable(text))


def _code(text: str) -> str:
    shown = printable(text).replace("`", "'").replace("|", "\\|")
    return f"`{shown}`"


RENDERER = Renderer(
    "markdown", (".md", ".markdown"), "for a mailing list or an issue", render, groups=True
)
