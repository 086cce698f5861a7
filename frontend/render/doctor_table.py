"""What the doctor found: as a table, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

from kleak.model.doctor import BOTH, Finding, State, obstacles
from kleak.model.session import Kernel

SCHEMA = "kleak.model.doctor/1"

_COLORS = {State.YES: "32", State.DEGRADED: "33", State.NO: "31"}


def render_table(
    kernel: Kernel, findings: Sequence[Finding], *, width: int = 100, color: bool = False
) -> str:
    """One line a finding, what it means and what mends it below where it is not simply yes."""
    lines = [f"Linux {kernel.release} {kernel.machine}"]
    name_width = max(len(finding.name) for finding in findings)
    areas = list(dict.fromkeys(finding.area for finding in findings))
    area = None
    for finding in sorted(findings, key=lambda finding: areas.index(finding.area)):
        if finding.area != area:
            area = finding.area
            lines += ["", area]
        state = f"{finding.state.value:8}"
        if color:
            state = f"\x1b[{_COLORS[finding.state]}m{state}\x1b[0m"
        margin = " " * (2 + name_width + 2 + 8 + 2)
        start = f"  {finding.name:{name_width}}  {state}  "
        wrapped = _wrap(finding.found, width - len(margin))
        lines.append(start + wrapped[0])
        lines += [margin + line for line in wrapped[1:]]
        for label, text in (("", finding.means), ("mend: ", finding.mend)):
            if text and (finding.state is not State.YES or not label):
                lines += [margin + line for line in _wrap(label + text, width - len(margin))]
    lines.append("")
    for command in BOTH:
        hindered = obstacles(findings, command)
        names = ", ".join(finding.name for finding in hindered)
        lines.append(
            f"kleak {command} cannot run here: {names}"
            if hindered
            else f"kleak {command} can run here"
        )
    return "\n".join(lines) + "\n"


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, width), break_on_hyphens=False)


def render_json(kernel: Kernel, findings: Sequence[Finding]) -> str:
    """One document: the findings in order, and which commands can run."""
    document = {
        "schema": SCHEMA,
        "kernel": {"release": kernel.release, "machine": kernel.machine},
        "can_run": {command: not obstacles(findings, command) for command in BOTH},
        "findings": [
            {
                "area": finding.area,
                "name": finding.name,
                "state": finding.state.value,
                "found": finding.found,
                "means": finding.means or None,
                "mend": finding.mend or None,
                "needed_by": list(finding.needed_by),
            }
            for finding in findings
        ],
    }
    return json.dumps(document, indent=2) + "\n"
