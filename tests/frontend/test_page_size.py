"""Pages are as large as the machine says."""

from kleak.model.session import PAGE_BYTES
from kleak.parsers.code_location import CodeLocation
from kleak.parsers.page_owner import StackPages
from kleak.snapshots.judge import analyze
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
