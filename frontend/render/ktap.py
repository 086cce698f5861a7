"""The report as KTAP, version 1, as the kernel's test tools read it (dev-tools/ktap.rst)."""

from __future__ import annotations

from kleak.model import JudgedSite, Report
from kleak.render.escape import printable
from kleak.render.renderer import Look, Material, Renderer
from kleak.render.stack_text import whole_stack
from kleak.render.table import counted, frame_text, kernels


def render(material: Material, look: Look) -> str:
    """A test for the trace, then one for each site: a site at ``look.fail_on`` or surer fails.

    The first is skipped, not passed, where events were lost: then nothing can be called clean.
    """
    report = material.report
    subject = _name(report.target.name)
    sites = report.sites
    lines = ["KTAP version 1", f"1..{1 + len(sites)}", f"# kernel: {_name(kernels(report))}"]
    lines += [f"# {_name(note)}" for note in report.trust.notes]
    lines.append(_trace(report, subject))
    for number, site in enumerate(sites, start=2):
        failed = site.verdict >= look.fail_on
        lines += _explain(site) if failed or look.verbose else []
        place = _name(frame_text(site.frames[0]))
        lines.append(
            f"{'not ok' if failed else 'ok'} {number} {subject}: {place} "
            f"{site.verdict.label} {site.outstanding.count} objects "
            f"{site.outstanding.size_bytes} bytes"
        )
    failed_sites = sum(site.verdict >= look.fail_on for site in sites)
    skipped = 0 if report.trust.complete else 1
    passed = 1 + len(sites) - failed_sites - skipped
    lines.append(
        f"# Totals: pass:{passed} fail:{failed_sites} xfail:0 xpass:0 skip:{skipped} error:0"
    )
    return "\n".join(lines) + "\n"


def _trace(report: Report, subject: str) -> str:
    if report.trust.complete:
        return f"ok 1 {subject}: trace is complete"
    lost = ", ".join(counted(report.trust.lost))
    return f"ok 1 {subject}: trace is complete # SKIP lost: {_name(lost)}"


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
