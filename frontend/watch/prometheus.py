"""What is outstanding in Prometheus' text format, version 0.0.4, for soak tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from kleak.watch.readings import Held, LiveSite, Reading, Since, name_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_SITES = 200

_REST = {"site": "other", "allocator": "", "module": "", "function": "", "caller": ""}


def render(reading: Reading, scope: str) -> str:
    """The metrics of one reading: MOST_SITES sites with the most bytes, all others in one.

    ``scope`` names what is watched.
    """
    labelled = by_labels(reading.held[Since.START])
    watched = {"scope": scope}
    lines = [
        *_metric("kleak_outstanding_bytes", "gauge", "Bytes allocated since the start, not freed."),
        *(_sample("kleak_outstanding_bytes", labels, held[1]) for labels, held in labelled),
        *_metric("kleak_outstanding_objects", "gauge", "Objects allocated and not freed."),
        *(_sample("kleak_outstanding_objects", labels, held[0]) for labels, held in labelled),
        *_metric("kleak_sites", "gauge", "Sites of which something is outstanding."),
        _sample("kleak_sites", watched, len(reading.held[Since.START])),
        *_metric("kleak_marks_total", "counter", "Marks that were set."),
        _sample("kleak_marks_total", {}, reading.marks),
        *_metric("kleak_evicted_stacks_total", "counter", "Stacks dropped, nothing outstanding."),
        _sample("kleak_evicted_stacks_total", {}, reading.evicted_stacks),
        *_metric("kleak_lost_total", "counter", "Events that were missed, by reason."),
        *(_sample("kleak_lost_total", {"reason": why}, n) for why, n in reading.lost.items()),
    ]
    return "\n".join(lines) + "\n"


def by_labels(held: Mapping[LiveSite, Held]) -> list[tuple[dict[str, str], tuple[int, int]]]:
    """Labels, with the objects and bytes behind them: most bytes first, then "other"."""
    most = sorted(held.items(), key=lambda item: -item[1].size_bytes)
    labelled = [(_labels(site), (one.objects, one.size_bytes)) for site, one in most[:MOST_SITES]]
    rest = most[MOST_SITES:]
    if rest:
        labelled.append((_REST, _sum(one for _, one in rest)))
    return labelled


def _sum(held: Iterable[Held]) -> tuple[int, int]:
    count = size_bytes = 0
    for one in held:
        count, size_bytes = count + one.objects, size_bytes + one.size_bytes
    return count, size_bytes


def _labels(site: LiveSite) -> dict[str, str]:
    # A stack has up to 127 frames, too long for a label: its digest tells sites apart, and is
    # the same in every run on the same kernel.
    text = "\n".join((site.allocator, *(f"{f.module} {f.symbol} {f.offset}" for f in site.origin)))
    callers = site.callers
    return {
        "site": hashlib.blake2b(text.encode(), digest_size=6).hexdigest(),
        "allocator": site.allocator,
        "module": site.module or "",
        "function": site.function,
        "caller": name_of(callers[1]) if len(callers) > 1 else "",
    }


def _metric(name: str, kind: str, meaning: str) -> tuple[str, str]:
    return f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: Mapping[str, str], value: int) -> str:
    pairs = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
    return f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
