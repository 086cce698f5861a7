"""What the doctor found: as a table, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

from kleak.model.doctor import BOTH, Check, State, obstacles
from kleak.model.session import Kernel

SCHEMA = "kleak.model.doctor/1"

_COLORS = {State.YES: "32", State.DEGRADED: "33", State.NO: "31"}


def render_table(
    kernel: Kernel, checks: Sequence[Check], *, width: int = 100, color: bool = False
) -> str:
    """One line a check, what it means and what mends it below where it is not simply yes."""
    lines = [f"Linux {kernel.release} {kernel.machine}"]
    name_width = max(len(check.name) for check in checks)
    areas = list(dict.fromkeys(check.area for check in checks))
    area = None
    for check in sorted(checks, key=lambda check: areas.index(check.area)):
        if check.area != area:
            area = check.area
            lines += ["", area]
        state = f"{check.state.value:8}"
        if color:
            state = f"\x1b[{_COLORS[check.state]}m{state}\x1b[0m"
        margin = " " * (2 + name_width + 2 + 8 + 2)
        start = f"  {check.name:{name_width}}  {state}  "
        wrapped = _wrap(check.found, width - len(margin))
        lines.append(start + wrapped[0])
        lines += [margin + line for line in wrapped[1:]]
        for label, text in (("", check.effect), ("mend: ", check.mend)):
            if text and (check.state is not State.YES or not label):
                lines += [margin + line for line in _wrap(label + text, width - len(margin))]
    lines.append("")
    for command in BOTH:
        hindered = obstacles(checks, command)
        names = ", ".join(check.name for check in hindered)
        lines.append(
            f"kleak {command} cannot run here: {names}"
            if hindered
            else f"kleak {command} can run here"
        )
    return "\n".join(lines) + "\n"


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, width), break_on_hyphens=False)


def render_json(kernel: Kernel, checks: Sequence[Check]) -> str:
    """One document: the checks in order, and which commands can run."""
    document = {
        "schema": SCHEMA,
        "kernel": {"release": kernel.release, "machine": kernel.machine},
        "can_run": {command: not obstacles(checks, command) for command in BOTH},
        "findings": [
            {
                "area": check.area,
                "name": check.name,
                "state": check.state.value,
                "found": check.found,
                "means": check.effect or None,
                "mend": check.mend or None,
                "needed_by": list(check.needed_by),
            }
            for check in checks
        ],
    }
    return json.dumps(document, indent=2) + "\n"
