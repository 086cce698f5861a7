"""``kleak triage``: one look at the running machine, or at a snapshot."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from kleak.errors import ExitStatus, UsageError
from kleak.render.memory import render_triage
from kleak.snapshots.collect import collect
from kleak.snapshots.snapshot_files import read_snapshots
from kleak.snapshots.triage import triage as triage_snapshot
from kleak.terminal import text_width


@click.command(
    epilog="Example: sudo kleak triage; or kleak triage meminfo.txt slabinfo.txt",
)
@click.argument(
    "paths", metavar="[DIR|FILE]...", nargs=-1, type=click.Path(exists=True, path_type=Path)
)
@click.option("--drop-caches", is_flag=True, help="Have the kernel give back its caches first.")
@click.option("--scan", is_flag=True, help="Have kmemleak scan twice first (takes 10 s and more).")
@click.option("--bytes", "exact", is_flag=True, help="Sizes of the classes in bytes.")
def triage(paths: tuple[Path, ...], drop_caches: bool, scan: bool, exact: bool) -> int:
    """Say where kernel memory stands on the running machine, or in the last of the snapshots
    or reports given; what looks abnormal; which witness to ask next, and how.

    It judges nothing: the exit status is 0 whatever it finds.
    """
    if paths:
        if drop_caches or scan:
            raise UsageError("--drop-caches and --scan are for the running machine, not for files")
        snapshot = read_snapshots(paths)[-1]
    else:
        with tempfile.TemporaryDirectory(prefix="kleak-triage-") as directory:
            taken = collect(Path(directory), drop_caches=drop_caches, scan=scan)
            snapshot = read_snapshots([taken.path])[-1]
        for sentence in taken.not_done():
            click.echo(f"kleak: {sentence}", err=True)
    found = triage_snapshot(snapshot)
    click.echo(render_triage(found, width=text_width(), exact=exact), nl=False)
    return ExitStatus.CLEAN
