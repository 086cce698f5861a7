"""``kleak collect``: save a snapshot of the kernel's reports."""

from __future__ import annotations

from pathlib import Path

import click

from kleak.errors import ExitStatus, UsageError
from kleak.snapshots.collect import collect as collect_snapshot
from kleak.snapshots.collect import script as collecting_script


@click.command(
    epilog="Example: kleak collect --script >collect.sh; on the board: sh collect.sh --tar /tmp/s",
)
@click.argument("directory", metavar="DIR", required=False, type=click.Path(path_type=Path))
@click.option("--drop-caches", is_flag=True, help="Have the kernel give back its caches first.")
@click.option("--scan", is_flag=True, help="Have kmemleak scan twice first (takes 10 s and more).")
@click.option(
    "--script",
    is_flag=True,
    help="Print a POSIX shell script that does the same with busybox, and do nothing else.",
)
def collect(directory: Path | None, drop_caches: bool, scan: bool, script: bool) -> int:
    """Save the next numbered snapshot of the kernel's reports in DIR.

    One file a report, and what was refused and why. Read them with kleak analyze DIR, here or
    elsewhere. As root it sees everything. Settings are put back. What was asked for and refused is
    told, and the rest is saved.
    """
    if script:
        if directory is not None or drop_caches or scan:
            raise UsageError("--script takes nothing else: the script has these options itself")
        click.echo(collecting_script(), nl=False)
        return ExitStatus.CLEAN
    if directory is None:
        raise UsageError("collect where? Give a directory: kleak collect DIR")
    snapshot = collect_snapshot(directory, drop_caches=drop_caches, scan=scan)
    for sentence in snapshot.not_done():
        click.echo(f"kleak: {sentence}", err=True)
    for report, reason in sorted(snapshot.refused.items()):
        if reason != "absent":
            click.echo(f"kleak: {report}: {reason}", err=True)
    click.echo(snapshot.path)
    return ExitStatus.CLEAN
