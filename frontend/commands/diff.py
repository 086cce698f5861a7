"""``kleak diff``: two reports on one target, and what changed between them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kleak.analysis.comparison import WORSE, compare
from kleak.commands.options.decision import Decision, decision_options
from kleak.commands.report_file import read_report
from kleak.errors import ExitStatus
from kleak.files.output_files import check_place, refuse_clashes, write_files
from kleak.render import difference
from kleak.terminal import text_width


@click.command(epilog="Example: kleak diff before.json after.kleak")
@click.argument("before", metavar="A", type=click.Path())
@click.argument("after", metavar="B", type=click.Path())
@click.option(
    "--json", metavar="FILE", type=click.Path(), help="Write the result as JSON too; - for stdout."
)
@click.option("--verbose", is_flag=True, help="Also the sites that did not change.")
@decision_options(site="a site that is new or grew", result="one of the reports")
def diff(before: str, after: str, json: str | None, verbose: bool, decision: Decision) -> int:
    """Compare the reports A and B on one target: reports in JSON, or saved sessions.

    A site is the same if the functions on its stack are: offsets, lines and compilers' suffixes do
    not count. It grew if it leaks more objects a cycle, beyond chance. Needs no root.

    Exit status: 0 nothing is new or grew, 1 something did (see --fail-on), 2 usage, 5 incomplete
    with --strict.
    """
    refuse_clashes({"--json": json}, (before, after))
    if json not in (None, "-"):
        check_place(str(json))
    comparison = compare(read_report(Path(before)), read_report(Path(after)))
    document = difference.render_json(comparison)
    # The file first: who reads what is printed may go away.
    failure = None if json in (None, "-") else write_files([(str(json), document)])
    text_to = sys.stderr if json == "-" else sys.stdout
    shown = difference.render(comparison, verbose=verbose, width=text_width())
    click.echo(shown, file=text_to, nl=False)
    if json == "-":
        click.echo(document, nl=False)
    if failure is not None:
        raise failure
    reports = (comparison.before, comparison.after)
    if decision.strict and not all(report.trust.complete for report in reports):
        return ExitStatus.INCOMPLETE
    worse = any(
        change.kind in WORSE
        and change.verdict >= decision.least
        and change.after is not None
        and not change.after.excused
        for change in comparison.changes
    )
    return ExitStatus.FOUND if worse else ExitStatus.CLEAN
