"""The page of metrics, read by Prometheus' own client."""

from __future__ import annotations

import pytest

from kleak.model.session import Frame
from kleak.watch.readings import Held, LiveSite, Reading
from tests.frontend.watch.test_readings import INODE, SIGNALFD, reading

pytest.importorskip("prometheus_client", reason="needs prometheus-client")
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kleak.watch.prometheus import MOST_SITES, Metrics


def render(found: Reading | None, scope: str) -> str:
    """The page that is served."""
    metrics, registry = Metrics(scope), CollectorRegistry()
    registry.register(metrics)
    metrics.reading = found
    return generate_latest(registry).decode()


def samples(page: str, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    ]


def test_totals_by_site() -> None:
    page = render(reading(5, {SIGNALFD: Held(37, 296, 0), INODE: Held(3, 3288, 0)}), "*")
    (inode, inode_bytes), (signalfd, signalfd_bytes) = samples(page, "kleak_outstanding_bytes")
    assert (inode_bytes, signalfd_bytes) == (3288, 296)
    assert inode["module"] == "ext4"
    assert signalfd["function"] == "do_signalfd4"
    assert signalfd["caller"] == "do_syscall_64"
    assert signalfd["allocator"] == "kmalloc"
    assert [value for _, value in samples(page, "kleak_outstanding_objects")] == [3, 37]
    assert samples(page, "kleak_sites") == [({"scope": "*"}, 2)]
    assert samples(page, "kleak_lost_total") == [({"reason": "missed_kfree_events"}, 2)]
    assert samples(page, "kleak_evicted_stacks_total") == [({}, 5)]


def test_before_the_first_reading_there_is_nothing() -> None:
    assert render(None, "*") == ""


def test_labels_come_back_as_they_were() -> None:
    hard = 'a"b\\c\nd\\n'
    held = {LiveSite("kmalloc", (Frame(hard, hard, 4),)): Held(1, 8, 0)}
    page = render(reading(5, held), hard)
    ((labels, _),) = samples(page, "kleak_outstanding_bytes")
    assert labels["function"] == hard
    assert labels["module"] == hard
    assert samples(page, "kleak_sites")[0][0] == {"scope": hard}


def test_series_are_bounded_and_nothing_is_left_out() -> None:
    held = {LiveSite("kmalloc", (Frame(None, f"f{n}", 4),)): Held(1, n, 0) for n in range(1, 1001)}
    page = render(reading(5, held), "*")
    found = samples(page, "kleak_outstanding_bytes")
    assert len(found) == MOST_SITES + 1
    assert len({labels["site"] for labels, _ in found}) == MOST_SITES + 1
    assert sum(value for _, value in found) == sum(range(1, 1001))
    assert found[-1][0]["site"] == "other"
    assert found[-1][1] == sum(range(1, 1001 - MOST_SITES))


def test_site_label_is_that_of_the_stack() -> None:
    def label(site: LiveSite) -> str:
        return samples(render(reading(5, {site: Held(1, 8, 0)}), "*"), "kleak_outstanding_bytes")[
            0
        ][0]["site"]

    one, same = (LiveSite("kmalloc", (Frame(None, "f", 4),)) for _ in range(2))
    assert label(one) == label(same)
    assert label(one) != label(LiveSite("kmalloc", (Frame(None, "f", 5),)))
    assert label(one) != label(LiveSite("pages", (Frame(None, "f", 4),)))
