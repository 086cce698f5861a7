"""The report as a speedscope file: two profiles of the same stacks, bytes and objects."""

from __future__ import annotations

import json
from typing import Any

from kleak.model.session import Frame
from kleak.render.escape import printable
from kleak.render.renderer import Look, Material, Renderer
from kleak.render.sentences import kernels
from kleak.render.stack_text import function, whole_stack

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def render(material: Material, look: Look) -> str:
    """One JSON document, in the format that ``SCHEMA`` names."""
    report = material.report
    frames: dict[tuple[str, str | None, int | None], int] = {}
    samples = [
        [_number(frame, frames) for frame in reversed(whole_stack(site))] for site in report.sites
    ]
    held = [site.outstanding for site in report.sites]
    name = printable(f"{report.target.kind} {report.target.name}")
    return (
        json.dumps(
            {
                "$schema": SCHEMA,
                "exporter": "kleak",
                "name": f"{name}, {printable(kernels(report))}",
                "activeProfileIndex": 0,
                "shared": {"frames": [_frame(*key) for key in frames]},
                "profiles": [
                    _profile("outstanding bytes", "bytes", samples, [t.size_bytes for t in held]),
                    _profile("outstanding objects", "none", samples, [t.count for t in held]),
                ],
            }
        )
        + "\n"
    )


def _number(frame: Frame, frames: dict[tuple[str, str | None, int | None], int]) -> int:
    source = frame.source
    file, line = (None, None) if source is None else (printable(source.file), source.line)
    return frames.setdefault((function(frame), file, line), len(frames))


def _frame(name: str, file: str | None, line: int | None) -> dict[str, Any]:
    if file is None:
        return {"name": name}
    return {"name": name, "file": file, "line": line}


def _profile(name: str, unit: str, samples: list[list[int]], weights: list[int]) -> dict[str, Any]:
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }


RENDERER = Renderer("speedscope", (".speedscope.json", ".speedscope"), "for speedscope", render)
