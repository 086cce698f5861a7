"""The report as KTAP, version 1, as the kernel's test tools read it (dev-tools/ktap.rst)."""

from __future__ import annotations

from collections.abc import Mapping

from kleak.model.report import JudgedSite, Report
from kleak.render.escape import printable
from kleak.render.renderer import Look, Material, Renderer
from kleak.render.sentences import kernels, place
from kleak.render.stack_text import whole_stack
from kleak.wording import counted, frame_text


def render(material: Material, look: Look) -> str:
    """A test for the trace, then one for each site: a site at ``look.fail_on`` or surer fails.

    The first is skipped, not passed, where the trace is incomplete: then nothing can be called
    clean. So is a site that would fail but is excused, or hangs on another one that fails. Where
    sites are not shown, a last test stands for them.
    """
    report = material.report
    subject = _name(report.target.name)
    sites = report.sites
    tests = 1 + len(sites) + bool(report.not_shown)
    lines = ["KTAP version 1", f"1..{tests}", f"# kernel: {_name(kernels(report))}"]
    lines += [f"# note: {_name(note)}" for note in report.trust.notes]
    lines.append(_trace(report, subject))
    numbers = {site.rank: number for number, site in enumerate(sites, start=2)}
    failed = skipped = 0
    for site in sites:
        guilty = site.verdict >= look.fail_on
        skip = _skip(site, numbers) if guilty else ""
        failed += guilty and not skip
        skipped += bool(skip)
        lines += _explain(site) if guilty or look.verbose else []
        lines.append(
            f"{'not ok' if guilty and not skip else 'ok'} {numbers[site.rank]} {subject}: "
            f"{_name(place(site))} {site.verdict.label} {site.outstanding.count} objects "
            f"{site.outstanding.size_bytes} bytes{skip}"
        )
    if report.not_shown:
        guilty_too = sum(
            site.verdict >= look.fail_on and site.is_finding for site in report.not_shown
        )
        failed += bool(guilty_too)
        lines.append(
            f"{'not ok' if guilty_too else 'ok'} {tests} {subject}: {len(report.not_shown)} more "
            f"sites, not shown: {guilty_too} would fail"
        )
    skipped += not report.trust.complete
    passed = tests - failed - skipped
    lines.append(f"# Totals: pass:{passed} fail:{failed} xfail:0 xpass:0 skip:{skipped} error:0")
    return "\n".join(lines) + "\n"


def _trace(report: Report, subject: str) -> str:
    if report.trust.complete:
        return f"ok 1 {subject}: trace is complete"
    lost = ", ".join(counted(report.trust.lost))
    return f"ok 1 {subject}: trace is complete # SKIP lost: {_name(lost)}"


def _skip(site: JudgedSite, numbers: Mapping[int, int]) -> str:
    """The directive for a site that does not count by itself; empty if it does."""
    if site.excuse is not None:
        return f" # SKIP {_name(site.excuse.says)}"
    # The parent may be beyond --top.
    if site.parent is not None and site.parent.rank in numbers:
        return f" # SKIP hangs on test {numbers[site.parent.rank]}: {_name(site.parent.says)}"
    return ""


def _explain(site: JudgedSite) -> list[str]:
    stack = [f"#   {_name(frame_text(frame))}" for frame in whole_stack(site)]
    reasons = [
        f"# {item.weight:+.2f} {_name(item.witness)}: {_name(item.says)}" for item in site.evidence
    ]
    return [*stack, *reasons]


def _name(text: str) -> str:
    """A description: a # would begin a directive."""
    return printable(text).replace("#", "_")


RENDERER = Renderer("ktap", (".ktap", ".tap"), "for kernel test tools", render)
