"""Each posted report in each dress gives what the bare one gives."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleak.errors import UsageError
from kleak.snapshots.snapshot_files import read
from tests.frontend.snapshots.dresses import ENCODINGS, PREFIXES, QUOTES, wrap
from tests.support.paths import TESTS

REPORTS = TESTS / "data" / "reports"
# One of each kind, undressed.
BARE = {
    path.stem: path.read_text()
    for name in (
        "base/ok-kmemleak", "base/ok-meminfo", "base/ok-slabinfo", "a01-allocinfo-alone",
        "b01-buddyinfo-alone", "b02-pagetypeinfo", "d05-plain", "d07b-slab-cache-still-has-objects",
        "k18-kmemleak-shorter-stack", "p02-page_owner_sorted-new", "p03-page_owner_raw",
        "p06-page_owner_stacks_6.12", "t01-alloc_calls-old", "v01-vmallocinfo-pcpu",
        "v05-vmallocinfo-2.6-arm", "w01-slabtop", "w03-crash-kmem-i", "w04-memleak-bcc",
        "w05-bpftrace", "w06-vmstat", "w07-ref_tracker-debugfs", "w09-smem", "w11-slabinfo-tool",
        "w12-cgroups", "f-free",
    )
    if (path := REPORTS / f"{name}.txt")
}  # fmt: skip
APART = frozenset(("label", "time", "losses", "log", "problems", "line_number"))
# What ends a record is a blank line, and frames alone are no report: a dress may hide that.
LOG_ONLY = {"w05-bpftrace"}


def plain(value):
    """What a report says, without where it stands."""
    if is_dataclass(value):
        return {
            item.name: plain(getattr(value, item.name))
            for item in fields(value)
            if item.name not in APART
        }
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def answer(data):
    return [plain(shot) for shot in read([], pasted=data).snapshots]


CLEAN = {name: answer(text.encode()) for name, text in BARE.items()}


@pytest.mark.parametrize("name", BARE)
def test_every_prefix(name):
    wrong = [
        p for p, dress in PREFIXES.items() if answer(dress(BARE[name]).encode()) != CLEAN[name]
    ]
    assert wrong == []


@pytest.mark.parametrize("name", BARE)
def test_every_quote(name):
    wrong = [q for q, dress in QUOTES.items() if answer(dress(BARE[name]).encode()) != CLEAN[name]]
    assert wrong == []


@pytest.mark.parametrize("name", BARE)
def test_every_encoding(name):
    wrong = [e for e, encode in ENCODINGS.items() if answer(encode(BARE[name])) != CLEAN[name]]
    assert wrong == []


def loses(data):
    """Whether it is said that something could not be used."""
    try:
        reading = read([], pasted=data)
    except UsageError:
        return True
    return any(shot.losses or shot.damaged for shot in reading.snapshots)


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("width", [40, 60, 72, 80])
def test_wrapped_it_is_the_same_or_the_loss_is_told(name, width):
    data = wrap(BARE[name], width).encode()
    assert loses(data) or answer(data) == CLEAN[name]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(BARE)), st.sampled_from(sorted(PREFIXES)),
    st.sampled_from(sorted(QUOTES)), st.sampled_from(sorted(ENCODINGS)),
)  # fmt: skip
def test_dresses_over_each_other(name, prefix, quote, encoding):
    text = QUOTES[quote](PREFIXES[prefix](BARE[name]))
    assert answer(ENCODINGS[encoding](text)) == CLEAN[name]
