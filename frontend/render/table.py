"""The report as text for a terminal or a pipe: report to rows, then rows to text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

from kleak.gc_pause import no_collection
from kleak.model.report import JudgedSite, MergedSession, Report, SuppressionUse, Verdict
from kleak.model.session import Frame, Trust
from kleak.render.escape import printable
from kleak.render.renderer import Look, Material, Renderer
from kleak.render.sentences import (
    closing,
    day,
    growth,
    kernels,
    stacks_known,
    standing,
    totals,
    trust_line,
)
from kleak.units import size
from kleak.wording import frame_text, plural

HEADERS = ("rank", "verdict", "score", "allocator", "count", "size", "growth")
ALIGN = ("right", "left", "right", "left", "right", "right", "left")
TOP_FRAMES = 3
INDENT = " " * 6
HANGS = "\\_ "
"""In front of the verdict of a site that hangs on another one, as ``ps f`` marks a child."""
MIN_WIDTH = 40

_RESET = "\x1b[0m"
_BOLD = "\x1b[1m"
_STYLE = {
    Verdict.CONFIRMED: "\x1b[1;31m",
    Verdict.LIKELY: "\x1b[31m",
    Verdict.POSSIBLE: "\x1b[33m",
    Verdict.RETAINED: "\x1b[2m",
}


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site as the table shows it: cells in the order of HEADERS, and the lines below."""

    verdict: Verdict
    cells: tuple[str, ...]
    frames: tuple[str, ...]
    reasons: tuple[str, ...]


# --- report to rows -------------------------------------------------------------------------


def rows(report: Report, *, verbose: bool = False, exact: bool = False) -> list[SiteRow]:
    """One row a site, in the report's order. Everything in them is printable."""
    return [_row(site, report, verbose=verbose, exact=exact) for site in report.sites]


def _row(site: JudgedSite, report: Report, *, verbose: bool, exact: bool) -> SiteRow:
    cells = (
        str(site.rank),
        site.verdict.label if site.parent is None else f"{HANGS}{site.verdict.label}",
        f"{site.score:.1f}",
        site.allocator,
        str(site.outstanding.count),
        size(site.outstanding.size_bytes, exact=exact),
        growth(site.per_cycle),
    )
    if verbose:
        frames = _whole_stack(site)
        reasons = tuple(
            f"{item.weight:+.2f}  {item.witness}: {item.says}" for item in site.evidence
        )
    else:
        frames = _top_frames(site.frames, report)
        reasons = (_reasons(site),)
    reasons = (
        *stacks_known(site),
        *(f"{mark}: {says}" for mark, says in standing(site)),
        *reasons,
    )
    return SiteRow(
        verdict=site.verdict,
        cells=tuple(printable(cell) for cell in cells),
        frames=tuple(printable(line) for line in frames),
        reasons=tuple(printable(line) for line in reasons),
    )


def _top_frames(frames: tuple[Frame, ...], report: Report) -> tuple[str, ...]:
    """The innermost frames, and the first one of a module where that lies deeper."""
    shown = list(range(min(TOP_FRAMES, len(frames))))
    if report.target.kind == "module" and all(frames[i].module is None for i in shown):
        deeper = next((i for i, frame in enumerate(frames) if frame.module is not None), None)
        if deeper is not None:
            shown[-1] = deeper
    lines: list[str] = []
    expected = 0
    for position in shown:
        if position > expected:
            lines.append(_left_out(position - expected))
        lines.append(frame_text(frames[position]))
        expected = position + 1
    if expected < len(frames):
        lines.append(_left_out(len(frames) - expected))
    return tuple(lines)


def _left_out(count: int) -> str:
    return f"... {plural(count, 'more frame')}"


def _whole_stack(site: JudgedSite) -> tuple[str, ...]:
    inner = [f"{frame_text(frame)}  (allocator)" for frame in site.allocator_frames]
    return (*inner, *(frame_text(frame) for frame in site.frames))


def _reasons(site: JudgedSite) -> str:
    """What speaks for a leak, then what speaks against it, then what was found without weight.

    Before all that, which of several sessions have it, and how it stands to a baseline.
    """
    said = [
        item
        for item in site.evidence
        if item.witness not in ("prior", "correlation", "sessions", "baseline")
    ]
    where = [item.says for item in site.evidence if item.witness in ("sessions", "baseline")]
    pro = [item.says for item in said if item.weight > 0]
    con = [item.says for item in said if item.weight < 0]
    open_questions = [item.says for item in said if item.weight == 0]
    parts = where + [
        f"{label}: {'; '.join(says)}"
        for label, says in (("for", pro), ("against", con), ("open", open_questions))
        if says
    ]
    return ". ".join(parts)


# --- rows to text ---------------------------------------------------------------------------


@no_collection()
def render(
    report: Report,
    *,
    verbose: bool = False,
    width: int = 80,
    color: bool = False,
    exact: bool = False,
) -> str:
    """The whole text, with a newline at its end.

    Sentences are wrapped to ``width`` columns; a frame keeps its line however long it is, since
    people search for symbols. ``exact`` writes sizes in bytes.
    """
    width = max(width, MIN_WIDTH)
    blocks = [_header(report, verbose=verbose, width=width, color=color)]
    if report.grouped_by is not None:
        blocks.append(_group_table(report, exact=exact))
    elif report.sites:
        blocks.append(_table(rows(report, verbose=verbose, exact=exact), width, color=color))
        blocks.append(_wrap(totals(report, exact=exact), width, "  "))
    if report.suppressions:
        blocks.append(_suppressions(report.suppressions, width, exact=exact))
    blocks.append(_wrap(closing(report, exact=exact), width))
    return "\n\n".join(blocks) + "\n"


def _header(report: Report, *, verbose: bool, width: int, color: bool) -> str:
    target = report.target
    subject = f"{target.kind} {target.name}"
    if verbose:
        for label, value in (("version", target.version), ("build-id", target.build_id)):
            subject += "" if value is None else f" {label} {value}"
    cycles = plural(report.cycles, "cycle")
    lines = [_wrap(f"{subject}, {cycles}, {kernels(report)}", width)]
    lines += [_wrap(_merged(one), width, "  ") for one in report.merged]
    lines.append(_trust(report.trust, verbose=verbose, width=width, color=color))
    lines += [_wrap(f"note: {note}", width, "  ") for note in report.trust.notes]
    return "\n".join(lines)


def _merged(session: MergedSession) -> str:
    cycles = plural(session.cycles, "cycle")
    text = f"session: {session.name}, {cycles}, Linux {session.kernel.release}"
    if session.started_at is not None:
        text += f", {day(session.started_at)}"
    if session.build_id is not None:
        text += f", build-id {session.build_id[:12]}"
    return text if session.complete else f"{text}, INCOMPLETE"


def _trust(trust: Trust, *, verbose: bool, width: int, color: bool) -> str:
    text = _wrap(trust_line(trust, verbose=verbose), width, "  ")
    word = "complete" if trust.complete else "INCOMPLETE"
    return text.replace(word, f"{_BOLD}{word}{_RESET}", 1) if color else text


def _table(site_rows: Sequence[SiteRow], width: int, *, color: bool) -> str:
    text = tabulate(
        [row.cells for row in site_rows],
        headers=HEADERS,
        tablefmt="simple",
        colalign=ALIGN,
        disable_numparse=True,
    )
    head, rule, *facts = (line.rstrip() for line in text.splitlines())
    blocks = ["\n".join((head, rule))]
    for row, line in zip(site_rows, facts, strict=True):
        shown = f"{_STYLE[row.verdict]}{line}{_RESET}" if color else line
        below = [INDENT + frame for frame in row.frames]
        below += [_wrap(reason, width, INDENT + "  ", first=INDENT) for reason in row.reasons]
        blocks.append("\n".join((shown, *below)))
    return "\n\n".join(blocks).replace(f"{rule}\n\n", f"{rule}\n", 1)


def _group_table(report: Report, *, exact: bool) -> str:
    return tabulate(
        [
            (
                str(group.sites),
                str(group.outstanding.count),
                size(group.outstanding.size_bytes, exact=exact),
                group.verdict.label,
                printable(group.key),
            )
            for group in report.groups
        ],
        headers=("sites", "count", "size", "surest", str(report.grouped_by)),
        tablefmt="simple",
        colalign=("right", "right", "right", "left", "left"),
        disable_numparse=True,
    )


def _suppressions(uses: Sequence[SuppressionUse], width: int, *, exact: bool) -> str:
    """The rules that were used, with what they excused; then the others, by name."""
    lines = []
    used = [use for use in uses if use.sites]
    if used:
        lines.append("Suppressions used:")
        lines.append(
            tabulate(
                [
                    (
                        str(use.sites),
                        str(use.outstanding.count),
                        size(use.outstanding.size_bytes, exact=exact),
                        printable(use.pattern),
                    )
                    for use in used
                ],
                headers=("sites", "count", "size", "template"),
                tablefmt="plain",
                colalign=("right", "right", "right", "left"),
                disable_numparse=True,
            )
        )
    lines += [
        _wrap(f"suppression not used: {use.file}:{use.line}: leak:{use.pattern}", width, "  ")
        for use in uses
        if not use.sites
    ]
    return "\n".join(lines)


def _wrap(text: str, width: int, indent: str = "", *, first: str = "") -> str:
    return textwrap.fill(
        printable(text),
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _render(material: Material, look: Look) -> str:
    return render(
        material.report,
        verbose=look.verbose,
        width=look.width,
        color=look.color,
        exact=look.exact,
    )


RENDERER = Renderer("text", (".txt",), "a table, as the capture prints it", _render, groups=True)
