"""Pages are as large as the machine says, in a session and in a snapshot."""

from dataclasses import replace

from kleak.model.session import PAGE_BYTES
from kleak.parsers.code_location import CodeLocation
from kleak.parsers.page_owner import StackPages
from kleak.snapshots.judge import analyze
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.snapshot_files import read_snapshots

FRAMES = (CodeLocation("leak_it", 1, 9, "leaky"),)


def test_pages_of_a_snapshot_are_as_large_as_its_machines():
    steps = [(StackPages(pages, FRAMES),) for pages in (1, 2, 3)]
    for size in (PAGE_BYTES, 16384, 65536):
        shots = [Snapshot(str(i), page_bytes=size, page_stacks=one) for i, one in enumerate(steps)]
        [found] = analyze(shots, "x").report.sites
        assert found.outstanding.size_bytes == 2 * size


def test_a_manifest_tells_the_page_size(tmp_path):
    for told, expected in {
        "16384": 16384,
        "65536": 65536,
        None: PAGE_BYTES,
        "x": PAGE_BYTES,
    }.items():
        place = tmp_path / f"of-{told}"
        place.mkdir()
        line = "" if told is None else f"page_bytes: {told}\n"
        (place / "manifest").write_text(f"kleak-snapshot: 1\nkernel: 6.1\n{line}")
        (place / "meminfo").write_text("MemTotal: 4 kB\nMemFree: 1 kB\n")
        [shot] = read_snapshots([place])
        assert (shot.page_bytes, shot.kernel.page_bytes) == (expected, expected)
        assert replace(shot.kernel, page_bytes=1) != shot.kernel
