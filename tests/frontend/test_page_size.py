"""Pages are as large as the machine says."""

import pytest

from kleak.errors import UsageError
from kleak.model.session import PAGE_BYTES
from kleak.parsers.code_location import CodeLocation
from kleak.parsers.page_owner import StackPages
from kleak.snapshots.judge import analyze
from kleak.snapshots.page_size import parse_size
from kleak.snapshots.snapshot import Snapshot

FRAMES = (CodeLocation("leak_it", 1, 9, "leaky"),)


def test_pages_of_a_snapshot_are_as_large_as_its_machines():
    steps = [(StackPages(pages, FRAMES),) for pages in (1, 2, 3)]
    for size in (PAGE_BYTES, 16384, 65536):
        shots = [
            Snapshot(str(i), known_page_bytes=size, page_stacks=one) for i, one in enumerate(steps)
        ]
        [found] = analyze(shots, "x").report.sites
        assert found.outstanding.size_bytes == 2 * size


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("16k", 16384), ("64K", 65536), ("4kB", 4096), (" 16KiB", 16384)],
)
def test_a_page_size_is_given_in_bytes_or_in_k(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "5k", "16M", "-4096", "16 k"])
def test_no_page_size(text):
    with pytest.raises(UsageError, match="is not a page size"):
        parse_size(text)
