"""The charts of the HTML page, as numbers for its template to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kleak.model.session import MemorySample, Tally
from kleak.render.escape import printable
from kleak.render.renderer import Capture
from kleak.units import size
from kleak.wording import objects

MAX_BARS = 120
_BARS_HEIGHT = 44.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 700.0, 20.0, 170.0
_SPARK_WIDTH, _SPARK_HEIGHT = 160.0, 28.0
_LABELLED_CYCLES = 20


def bars(per_cycle: Sequence[Tally] | None) -> dict[str, Any]:
    """Objects kept by cycle, a bar each; none where cycles are unknown, one, or very many."""
    if per_cycle is None or not 2 <= len(per_cycle) <= MAX_BARS:
        return {"bars": [], "bars_width": 0, "bars_label": ""}
    step = max(4, min(24, 600 // len(per_cycle)))
    most = max(max(tally.count for tally in per_cycle), 1)
    drawn = []
    for position, tally in enumerate(per_cycle):
        height = max(1.0, (_BARS_HEIGHT - 4) * tally.count / most) if tally.count > 0 else 0.0
        drawn.append(
            {
                "x": position * step,
                "y": f"{_BARS_HEIGHT - height:.1f}",
                "width": step - 2,
                "height": f"{height:.1f}",
                "title": f"cycle {position + 1}: {objects(tally)}",
            }
        )
    return {
        "bars": drawn,
        "bars_width": step * len(per_cycle),
        "bars_label": ", ".join(str(tally.count) for tally in per_cycle),
    }


def timelines(captures: Sequence[Capture]) -> list[dict[str, Any]]:
    """For each capture with samples: outstanding bytes over time, loads and unloads marked."""
    charts = []
    for capture in captures:
        samples = capture.session.circumstances.samples
        if len(samples) >= 2:
            charts.append(_timeline(capture, samples))
    return charts


def _timeline(capture: Capture, samples: Sequence[MemorySample]) -> dict[str, Any]:
    start = samples[0].time_ns
    length = max(samples[-1].time_ns - start, 1)
    most = max(max(sample.outstanding.size_bytes for sample in samples), 1)

    def x(time_ns: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (time_ns - start) / length

    def y(size_bytes: int) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * size_bytes / most

    dots = [
        {
            "x": f"{x(sample.time_ns):.1f}",
            "y": f"{y(sample.outstanding.size_bytes):.1f}",
            "title": f"{_moment(sample)}, {(sample.time_ns - start) / 1e9:.1f} s: "
            f"{objects(sample.outstanding)}",
        }
        for sample in samples
    ]
    cycles = capture.session.cycles
    marks = []
    for cycle in cycles:
        for kind, time_ns in (("loaded", cycle.loaded_at_ns), ("unloaded", cycle.unloaded_at_ns)):
            if time_ns is not None and start <= time_ns <= start + length:
                labelled = kind == "loaded" and len(cycles) <= _LABELLED_CYCLES
                marks.append(
                    {
                        "kind": kind,
                        "x": f"{x(time_ns):.1f}",
                        "title": f"cycle {cycle.index} {kind}",
                        "text": str(cycle.index) if labelled else "",
                    }
                )
    last = samples[-1].outstanding
    is_module = capture.report.target.kind == "module"
    what = "a load, an unload" if is_module else "start and end of a run"
    return {
        "label": f"Outstanding bytes over {length / 1e9:.0f} s, "
        f"{size(last.size_bytes)} at the end, {size(most)} at most",
        "points": " ".join(f"{dot['x']},{dot['y']}" for dot in dots),
        "dots": dots,
        "marks": marks,
        "ticks_y": [
            {"at": f"{y(value) + 4:.1f}", "text": size(value)} for value in (0, most // 2, most)
        ],
        "ticks_x": [
            {"at": f"{x(start + length * part // 4):.1f}", "text": f"{length * part / 4e9:.0f} s"}
            for part in range(5)
        ],
        "caption": printable(
            f"{capture.name}: dashed lines are {what}; numbers are cycles. All that the tracer "
            "counted, the allocators' own bookkeeping and guard pages included."
        ),
    }


def _moment(sample: MemorySample) -> str:
    when = printable(sample.when)
    return when if sample.cycle == 0 else f"cycle {sample.cycle} {when}"


def memory(captures: Sequence[Capture]) -> list[dict[str, Any]]:
    """For each capture with samples: fields of /proc/meminfo at its start, its end and between."""
    tables = []
    for capture in captures:
        samples = [s for s in capture.session.circumstances.samples if s.meminfo_bytes]
        if len(samples) < 2:
            continue
        fields = [
            name
            for name in samples[0].meminfo_bytes
            if all(name in sample.meminfo_bytes for sample in samples)
        ]
        tables.append(
            {
                "caption": printable(f"{capture.name}: /proc/meminfo, all of the machine"),
                "rows": [_field(name, samples) for name in fields],
            }
        )
    return tables


def _field(name: str, samples: Sequence[MemorySample]) -> dict[str, str]:
    values = [sample.meminfo_bytes[name] for sample in samples]
    least, most = min(values), max(values)
    start = samples[0].time_ns
    length = max(samples[-1].time_ns - start, 1)
    height = _SPARK_HEIGHT - 4
    points = (
        f"{_SPARK_WIDTH * (sample.time_ns - start) / length:.1f},"
        f"{2 + height - height * (value - least) / max(most - least, 1):.1f}"
        for sample, value in zip(samples, values, strict=True)
    )
    change = values[-1] - values[0]
    return {
        "name": printable(name),
        "first": size(values[0]),
        "last": size(values[-1]),
        "change": ("+" if change > 0 else "") + size(change),
        "label": f"{printable(name)} between {size(least)} and {size(most)}",
        "points": " ".join(points),
    }
