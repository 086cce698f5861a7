"""What is outstanding as metrics of Prometheus' client, for soak tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kleak.watch.readings import Held, LiveSite, Reading, Since, name_of

MOST_SITES = 200

_LABELS = ("site", "allocator", "module", "function", "caller")
_REST = ("other", "", "", "", "")


class Metrics(Collector):
    """The metrics of the latest ``reading``; none before the first. A registry collects them.

    MOST_SITES sites with the most bytes are series of their own, all others one.
    """

    def __init__(self, scope: str) -> None:
        """``scope`` names what is watched."""
        self._scope = scope
        self.reading: Reading | None = None

    def collect(self) -> Iterator[Metric]:
        """Return them."""
        reading = self.reading
        if reading is None:
            return
        held_bytes = GaugeMetricFamily(
            "kleak_outstanding_bytes", "Bytes allocated since the start, not freed.", labels=_LABELS
        )
        objects = GaugeMetricFamily(
            "kleak_outstanding_objects", "Objects allocated and not freed.", labels=_LABELS
        )
        held = reading.held[Since.START]
        for labels, (count, size_bytes) in _by_labels(held):
            held_bytes.add_metric(labels, size_bytes)
            objects.add_metric(labels, count)
        sites = GaugeMetricFamily(
            "kleak_sites", "Sites of which something is outstanding.", labels=("scope",)
        )
        sites.add_metric((self._scope,), len(held))
        lost = CounterMetricFamily(
            "kleak_lost", "Events that were missed, by reason.", labels=("reason",)
        )
        for reason, number in reading.lost.items():
            lost.add_metric((reason,), number)
        yield from (held_bytes, objects, sites, lost)
        yield CounterMetricFamily("kleak_marks", "Marks that were set.", value=reading.marks)
        yield CounterMetricFamily(
            "kleak_evicted_stacks",
            "Stacks dropped, nothing outstanding.",
            value=reading.evicted_stacks,
        )


def _by_labels(
    held: Mapping[LiveSite, Held],
) -> Iterator[tuple[tuple[str, ...], tuple[int, int]]]:
    """Labels, with the objects and bytes behind them: most bytes first, then "other"."""
    most = sorted(held.items(), key=lambda item: -item[1].size_bytes)
    for site, one in most[:MOST_SITES]:
        yield _labels(site), (one.objects, one.size_bytes)
    rest = most[MOST_SITES:]
    if rest:
        yield _REST, _sum(one for _, one in rest)


def _sum(held: Iterable[Held]) -> tuple[int, int]:
    count = size_bytes = 0
    for one in held:
        count, size_bytes = count + one.objects, size_bytes + one.size_bytes
    return count, size_bytes


def _labels(site: LiveSite) -> tuple[str, ...]:
    # A stack has up to 127 frames, too long for a label: its digest tells sites apart, and is
    # the same in every run on the same kernel.
    text = "\n".join((site.allocator, *(f"{f.module} {f.symbol} {f.offset}" for f in site.origin)))
    callers = site.callers
    return (
        hashlib.blake2b(text.encode(), digest_size=6).hexdigest(),
        site.allocator,
        site.module or "",
        site.function,
        name_of(callers[1]) if len(callers) > 1 else "",
    )
