"""``kleak triage``: one look at the running machine, or at a snapshot."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from kleak.errors import ExitStatus, UsageError
from kleak.files.names import readable
from kleak.render.memory import render_triage
from kleak.snapshots.archives import MAX_FILE_BYTES
from kleak.snapshots.collect import collect
from kleak.snapshots.page_size import parse_size
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.snapshot_files import read, read_snapshots
from kleak.snapshots.triage import triage as triage_snapshot
from kleak.terminal import text_width


@click.command(
    epilog="Example: sudo kleak triage; kleak triage bug.txt sosreport.tar.xz; or xclip -o | kleak "
    "triage -",
)
@click.argument(
    "paths",
    metavar="[DIR|FILE|-]...",
    nargs=-1,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
)
@click.option("--drop-caches", is_flag=True, help="Have the kernel give back its caches first.")
@click.option("--scan", is_flag=True, help="Have kmemleak scan twice first (takes 10 s and more).")
@click.option("--bytes", "exact", is_flag=True, help="Sizes of the classes in bytes.")
@click.option(
    "--page-size", metavar="SIZE", help="Size of a page, such as 16k, where no report tells."
)
def triage(
    paths: tuple[Path, ...], drop_caches: bool, scan: bool, exact: bool, page_size: str | None
) -> int:
    """Say where kernel memory stands on the running machine, or in what is given; who holds it;
    what looks abnormal; which witness to ask next, and how.

    DIR or FILE is whatever somebody sent: a report, a log, a mail with reports in it, a
    sosreport, an archive; - is standard input. What is not recognised is told and left out.

    It judges nothing: the exit status is 0 whatever it finds.
    """
    if paths:
        if drop_caches or scan:
            raise UsageError("--drop-caches and --scan are for the running machine, not for files")
        snapshots = _read(paths, None if page_size is None else parse_size(page_size))
    else:
        with tempfile.TemporaryDirectory(prefix="kleak-triage-") as directory:
            taken = collect(Path(directory), drop_caches=drop_caches, scan=scan)
            snapshots = read_snapshots([taken.path])
        for sentence in taken.not_done():
            click.echo(f"kleak: {sentence}", err=True)
    found = triage_snapshot(snapshots[-1], snapshots[:-1])
    click.echo(render_triage(found, width=text_width(), exact=exact), nl=False)
    return ExitStatus.CLEAN


def _read(paths: Sequence[Path], page_bytes: int | None) -> list[Snapshot]:
    """The snapshots in the paths and on standard input; tells what was not used."""
    files = [path for path in paths if str(path) != "-"]
    pasted = None
    if len(files) < len(paths):
        pasted = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        if len(pasted) > MAX_FILE_BYTES:
            raise UsageError(f"standard input has more than {MAX_FILE_BYTES >> 20} MB")
    reading = read(files, pasted=pasted, page_bytes=page_bytes)
    for sentence in reading.remarks:
        click.echo(f"kleak: {readable(sentence)}", err=True)
    return reading.snapshots
