"""The report as text for a terminal or a pipe: report to rows, then rows to text."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import median_low

from tabulate import tabulate

from kleak.gc_pause import no_collection
from kleak.model.report import JudgedSite, MergedSession, Report, SuppressionUse, Verdict
from kleak.model.session import Frame, Tally, Trust
from kleak.render import error_paths
from kleak.render.error_paths import injected
from kleak.render.escape import printable
from kleak.render.renderer import Look, Material, Renderer
from kleak.units import size

HEADERS = ("rank", "verdict", "score", "allocator", "count", "size", "growth")
ALIGN = ("right", "left", "right", "left", "right", "right", "left")
TOP_FRAMES = 3
LISTED_CYCLES = 6
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
    when = injected(site)
    reasons = (
        *((when,) if when else ()),
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


def growth(per_cycle: Sequence[Tally] | None) -> str:
    """Objects kept per cycle, short: "+3/cycle", "4,2,1,0,0", "~+3/cycle", or "-" if unknown.

    The last is the median of many cycles with different numbers, with how many of them grew.
    """
    if per_cycle is None or len(per_cycle) < 2:
        return "-"
    counts = [tally.count for tally in per_cycle]
    if len(set(counts)) == 1:
        return f"+{counts[0]}/cycle"
    if len(counts) <= LISTED_CYCLES:
        return ",".join(str(count) for count in counts)
    grew = [count for count in counts if count]
    if len(grew) == len(counts):
        return f"~+{median_low(counts)}/cycle"
    return f"+{sum(counts)} in {len(grew)} of {len(counts)}"


def frame_text(frame: Frame) -> str:
    """A frame as kernel people write it: ``symbol+0x1c [module] file.c:12``."""
    if frame.symbol is not None:
        text = f"{frame.symbol}+{frame.offset:#x}"
    elif frame.module is not None:
        text = f".text+{frame.offset:#x}"
    else:
        text = f"{frame.offset:#x}"
    if frame.module is not None:
        text += f" [{frame.module}]"
    if frame.source is not None:
        text += f" {frame.source.file}:{frame.source.line}"
    return text


def place(site: JudgedSite) -> str:
    """Where a site allocates, in a line: its innermost frame, or its slab cache without one."""
    return frame_text(site.frames[0]) if site.frames else site.allocator


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


def standing(site: JudgedSite) -> tuple[tuple[str, str], ...]:
    """What makes a site no finding by itself, a mark and its reason each; empty if it is one."""
    said = []
    if site.parent is not None:
        said.append((f"hangs on {site.parent.rank}", site.parent.says))
    if site.excuse is not None:
        said.append(("does not count", site.excuse.says))
    return tuple(said)


def stacks_known(site: JudgedSite) -> tuple[str, ...]:
    """How much is known of the stacks of a site, a sentence; empty where that is all of them."""
    sample, count = site.stacks, site.outstanding.count
    if sample is None or (sample.walked >= count and sample.different == 1):
        return ()
    if sample.walked == 0:
        alone = len(site.frames) + len(site.allocator_frames) == 1
        shown = "the call site alone" if alone else "that of objects that were freed"
        return (f"stacks: none of {count:,} walked; shown is {shown}",)
    said = f"stacks: {sample.walked:,} of {count:,} walked"
    if sample.different == 1:
        return (f"{said}, all the same",)
    return (f"{said}, {sample.different:,} differ; shown is that of {sample.shown:,}",)


def _left_out(count: int) -> str:
    return f"... {count} more frame" + ("" if count == 1 else "s")


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
        if item.witness not in ("prior", "correlation", "sessions", "baseline", "injected failure")
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
    if report.error_paths is not None:
        blocks.append("\n".join(map(printable, error_paths.text_lines(report, verbose=verbose))))
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
    cycles = "1 cycle" if report.cycles == 1 else f"{report.cycles} cycles"
    lines = [_wrap(f"{subject}, {cycles}, {kernels(report)}", width)]
    lines += [_wrap(_merged(one), width, "  ") for one in report.merged]
    lines.append(_trust(report.trust, verbose=verbose, width=width, color=color))
    lines += [_wrap(f"note: {note}", width, "  ") for note in report.trust.notes]
    return "\n".join(lines)


def kernels(report: Report) -> str:
    """The kernel of a report, or how many there were: "Linux 6.1.0 x86_64", "2 kernels"."""
    found = {one.kernel for one in report.merged} or {report.kernel}
    if len(found) > 1:
        return f"{len(report.merged)} sessions on {len(found)} kernels"
    return f"Linux {report.kernel.release} {report.kernel.machine}"


def _merged(session: MergedSession) -> str:
    cycles = "1 cycle" if session.cycles == 1 else f"{session.cycles} cycles"
    text = f"session: {session.name}, {cycles}, Linux {session.kernel.release}"
    if session.started_at is not None:
        text += f", {day(session.started_at)}"
    if session.build_id is not None:
        text += f", build-id {session.build_id[:12]}"
    return text if session.complete else f"{text}, INCOMPLETE"


def day(started_at: float) -> str:
    """The date of a moment in Unix time, UTC: "2026-11-23"."""
    return datetime.fromtimestamp(started_at, timezone.utc).strftime("%Y-%m-%d")


def _trust(trust: Trust, *, verbose: bool, width: int, color: bool) -> str:
    text = _wrap(trust_line(trust, verbose=verbose), width, "  ")
    word = "complete" if trust.complete else "INCOMPLETE"
    return text.replace(word, f"{_BOLD}{word}{_RESET}", 1) if color else text


def trust_line(trust: Trust, *, verbose: bool) -> str:
    """What the tracer missed and which witnesses were asked, in one line."""
    lost = counted(trust.lost)
    if trust.complete:
        word, rest = "complete", "nothing was lost"
        if any("absent: " in how for how in trust.means.values()):
            rest += " of what this kernel shows (see the notes)"
    else:
        word, rest = "INCOMPLETE", f"lost: {', '.join(lost)}"
    parts = [rest]
    used = [name for name, state in sorted(trust.witnesses.items()) if state == "used"]
    absent: defaultdict[str, list[str]] = defaultdict(list)
    for name, state in sorted(trust.witnesses.items()):
        if state != "used":
            absent[state.removeprefix("absent: ")].append(name)
    if used:
        parts.append(f"witnesses: {', '.join(used)}")
    if absent:
        named = (f"{' and '.join(names)} ({why})" for why, names in absent.items())
        parts.append(f"absent: {', '.join(named)}")
    unseen = trust.observed.get("frees_of_unseen_allocations", 0)
    if unseen:
        parts.append(f"{unseen} frees by the target of what it was not seen to allocate")
    repaired = counted(trust.repaired)
    if repaired and verbose:
        parts.append(f"made good: {', '.join(repaired)}")
    if verbose:
        parts += [f"{event}: {means}" for event, means in sorted(trust.means.items())]
    return f"trust: {word}; {'; '.join(parts)}"


def counted(numbers: dict[str, int]) -> list[str]:
    """What was lost, or made good: ``{"frees_missed": 2}`` as ["2 frees missed"]."""
    return [f"{count} {what.replace('_', ' ')}" for what, count in sorted(numbers.items()) if count]


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


def totals(report: Report, *, exact: bool = False) -> str:
    """Sites, objects and bytes by verdict, in one line."""
    parts = []
    for verdict in sorted(Verdict, reverse=True):
        sites = [site for site in report.every_site if site.verdict is verdict]
        if sites:
            count = sum(site.outstanding.count for site in sites)
            held = size(sum(site.outstanding.size_bytes for site in sites), exact=exact)
            parts.append(f"{len(sites)} {verdict.label} ({_objects(count)}, {held})")
    return f"totals: {', '.join(parts)}"


def closing(report: Report, *, exact: bool = False) -> str:
    """The conclusion, in a sentence or two."""
    leaks = [site for site in report.every_site if site.verdict >= Verdict.LIKELY]
    guilty = [site for site in leaks if site.excuse is None]
    confirmed = [site for site in guilty if site.verdict is Verdict.CONFIRMED]
    name = report.target.name
    wrong = error_paths.conclusion(report)
    if wrong and not guilty:
        return wrong + _unseen(report.trust)
    cycles = "1 cycle" if report.cycles == 1 else f"{report.cycles} cycles"
    if guilty:
        held = size(sum(site.outstanding.size_bytes for site in guilty), exact=exact)
        sure = "leaks" if confirmed else "very probably leaks"
        text = (
            f"{name} {sure}: {held} from {places(guilty)} in {cycles}. "
            f"Start with rank {guilty[0].rank}."
        )
    elif leaks:
        text = (
            f"No leak that counts: {'the one' if len(leaks) == 1 else f'all {len(leaks)}'} found "
            f"in {cycles} {'is' if len(leaks) == 1 else 'are'} known or suppressed."
        )
    elif report.sites:
        text = (
            f"No leak that would stand up: memory is outstanding after {cycles}, but too little "
            f"speaks against {name}."
        )
        if report.cycles < 3:
            text += " Three cycles or more would show whether it grows."
    else:
        text = f"No allocation in the scope of {name} was outstanding after {cycles}."
    if not guilty:
        text += _unseen(report.trust)
    return f"{text} {wrong}".rstrip()


def places(guilty: Sequence[JudgedSite]) -> str:
    """How many places leak, of sites that count: "1 place", "2 places (3 more hang on these)"."""
    findings = sum(site.is_finding for site in guilty) or len(guilty)
    text = "1 place" if findings == 1 else f"{findings} places"
    if hanging := len(guilty) - findings:
        verb = "hangs" if hanging == 1 else "hang"
        text += f" ({hanging} more {verb} on {'it' if findings == 1 else 'these'})"
    return text


def _unseen(trust: Trust) -> str:
    """What limits a result without a leak; the particulars are in the trust line."""
    absent = [name for name, state in sorted(trust.witnesses.items()) if state != "used"]
    text = ""
    if not trust.complete:
        text += " The trace is incomplete (see trust), so a leak may have been missed."
    if absent:
        text += f" Not asked: {', '.join(absent)}."
    return text


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


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
