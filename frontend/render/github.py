"""Annotations for GitHub Actions: one workflow command a finding, shown at its source line.

The escapes are those of escapeData() and escapeProperty() in actions/toolkit,
packages/core/src/command.ts.
"""

from __future__ import annotations

from collections.abc import Callable

from kleak.model.report import JudgedSite, Report, Verdict
from kleak.render.escape import printable
from kleak.render.renderer import Look, Material, Renderer
from kleak.render.sentences import place
from kleak.units import size
from kleak.wording import counted, either, plural


def render(report: Report, *, fail_on: Verdict, locate: Callable[[str], str]) -> str:
    """An error for each site that counts and is at ``fail_on`` or surer; nothing for the others.

    A site that hangs on another one has none of its own. A warning tells of what was lost.
    ``locate`` turns a source file's name into its path in the repository.
    """
    lines = [
        _error(site, report, locate)
        for site in report.sites
        if site.is_finding and site.verdict >= fail_on
    ]
    hidden = sum(site.is_finding and site.verdict >= fail_on for site in report.not_shown)
    if hidden:
        text = f"{hidden} more that would be shown here {either(hidden, 'is', 'are')} left out"
        lines.append(f"::warning title=kleak {_property(report.target.name)}::{_data(text)}")
    if not report.trust.complete:
        lost = f"the trace is incomplete, lost: {', '.join(counted(report.trust.lost))}"
        lines.append(f"::warning title=kleak {_property(report.target.name)}::{_data(lost)}")
    return "".join(f"{line}\n" for line in lines)


def _error(site: JudgedSite, report: Report, locate: Callable[[str], str]) -> str:
    title = f"kleak: {report.target.name}: {site.verdict.label} leak"
    held = site.outstanding
    objects = plural(held.count, "object")
    cycles = plural(report.cycles, "cycle")
    message = f"{place(site)}: {objects}, {size(held.size_bytes)}, not freed after {cycles}"
    source = next((frame.source for frame in site.frames if frame.source is not None), None)
    at = ""
    if source is not None:
        at = f"file={_property(locate(source.file))},line={source.line},"
    return f"::error {at}title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _render(material: Material, look: Look) -> str:
    return render(material.report, fail_on=look.fail_on, locate=look.locate)


RENDERER = Renderer("github", (".github",), "annotations for GitHub Actions", _render)
