"""``kleak analyze``: judge snapshots and report files, with no privilege, on any machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from kleak.commands.options.output import OutputOptions, output_options
from kleak.errors import UsageError
from kleak.files.names import readable
from kleak.model.report import Report
from kleak.render import memory
from kleak.snapshots.judge import Analysis
from kleak.snapshots.judge import analyze as analyze_snapshots
from kleak.snapshots.page_size import parse_size
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.snapshot_files import check_order, read
from kleak.wording import plural


@click.command(
    epilog="Example: kleak analyze vmallocinfo.before vmallocinfo.after",
)
@click.argument(
    "paths",
    metavar="DIR|FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--page-size", metavar="SIZE", help="Size of a page, such as 16k, where no report tells."
)
@output_options
def analyze(paths: tuple[Path, ...], page_size: str | None, output: OutputOptions) -> int:
    """Judge two or more snapshots, oldest first.

    DIR is what kleak collect or its script made (a tar of it will do), or a tree such as a
    sosreport; FILE is a report that was saved by hand, in whatever dress, or a loop of several:
    the first of each kind is the first snapshot, the second of each kind the next. What the
    kernel itself complained of needs one. Needs no privilege.

    Exit status: 0 nothing found, 1 a leak found (see --fail-on), 2 usage, 5 incomplete (damaged
    records) with --strict.
    """
    reporting = output.prepare(reads=map(str, paths))
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a snapshot or report is named twice: it would count twice")
    reading = read(paths, page_bytes=None if page_size is None else parse_size(page_size))
    for sentence in reading.remarks:
        click.echo(f"kleak: {readable(sentence)}", err=True)
    snapshots = reading.snapshots
    check_order(snapshots)
    if len(snapshots) < 2 and not any(_speaks_alone(shot) for shot in snapshots):
        raise UsageError("one snapshot cannot show growth: give two or more, or kleak triage it")
    noun = plural(len(snapshots), "snapshot")
    name = f"{', '.join(map(str, paths[:2]))}"
    name += f" and {len(paths) - 2} more" if len(paths) > 2 else ""
    analysis = analyze_snapshots(snapshots, f"{readable(name)} ({noun})")
    account = "" if analysis.memory is None else memory.render(analysis.memory, exact=output.exact)
    return reporting.write(_with_memory(analysis), account)


def _speaks_alone(shot: Snapshot) -> bool:
    """Whether a snapshot says something of leaks with nothing to compare it with."""
    return shot.kmemleak is not None or bool(shot.log) or bool(shot.references)


def _with_memory(analysis: Analysis) -> Report:
    """The report with what meminfo says among its notes, so that every format has it."""
    if analysis.memory is None:
        return analysis.report
    trust = analysis.report.trust
    says = tuple(f"meminfo: {sentence}" for sentence in analysis.memory.says)
    return replace(analysis.report, trust=replace(trust, notes=trust.notes + says))
