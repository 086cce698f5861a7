"""The options of the commands that judge: where the report goes, and what it decides."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click

from kleak.commands.options.decision import Decision, decision_options
from kleak.commands.options.excuses import ExcuseOptions, Excuses, excuse_options
from kleak.commands.options.option_group import Command, option_group
from kleak.errors import ExitStatus, UsageError
from kleak.files.output_files import check_place, refuse_clashes, write_files
from kleak.model.report import Report
from kleak.render import github, ktap, report_json, table
from kleak.render.checkout import locator
from kleak.render.renderer import Look, Material
from kleak.terminal import text_width, wants_color


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Where a report goes besides the table, how it looks, what counts, and what it decides."""

    json: str | None
    ktap: str | None
    annotate: bool
    verbose: bool
    exact: bool
    decision: Decision
    excuses: ExcuseOptions

    def prepare(
        self,
        *,
        table_to: TextIO | None = None,
        session: str | None = None,
        reads: Iterable[str] = (),
    ) -> Output:
        """Return the Output of the options, checked. Raises KleakError.

        Called before the work begins, so that a path which cannot be written costs nothing but a
        line. ``table_to``: where the table goes; standard output if not given, unless a document
        does. ``session``: the file of -o; ``reads``: files that are read, besides those that
        excuse.
        """
        outputs = {"-o": session, "--json": self.json, "--ktap": self.ktap}
        refuse_clashes(outputs, [*reads, *self.excuses.files])
        excuses = self.excuses.read()
        if self.json == self.ktap == "-":
            raise UsageError("--json - and --ktap -: one of them needs a file")
        for name in (self.json, self.ktap):
            if name is not None and name != "-":
                check_place(name)
        if table_to is None:
            table_to = sys.stderr if "-" in (self.json, self.ktap) else sys.stdout
        return Output(self, excuses, table_to)


@dataclass(frozen=True, slots=True)
class Output:
    """Where a report goes. ``text_to`` is for people: not where a document was sent."""

    options: OutputOptions
    excuses: Excuses
    text_to: TextIO

    def write(self, judged: Report, appendix: str = "") -> ExitStatus:
        """Write the documents, print the report, and return what it decides.

        ``appendix`` is printed at the end. Raises KleakError where a document could not be
        written, when all the rest is done.
        """
        options, text_to = self.options, self.text_to
        report = self.excuses.apply(judged)
        documents = self._documents(report)
        # Files first: who reads what is printed may go away.
        failure = write_files(one for one in documents if one[0] != "-")
        color = wants_color(text_to)
        shown = table.render(
            report,
            verbose=options.verbose,
            width=text_width(),
            color=color,
            exact=options.exact,
        )
        click.echo(shown, file=text_to, nl=False, color=color)
        for name, text in documents:
            if name == "-":
                click.echo(text, nl=False)
        if options.annotate:
            locate = locator(source_directories(report))
            text = github.render(report, fail_on=options.decision.least, locate=locate)
            click.echo(text, file=text_to, nl=False)
        click.echo(appendix, file=text_to, nl=False)
        if failure is not None:
            raise failure
        return options.decision.status_of(report)

    def _documents(self, report: Report) -> list[tuple[str, str]]:
        """What is asked for besides the table, by where it goes."""
        options = self.options
        documents = []
        if options.json is not None:
            documents.append((options.json, report_json.render(report)))
        if options.ktap is not None:
            look = Look(options.verbose, fail_on=options.decision.least)
            documents.append((options.ktap, ktap.render(Material(report, ()), look)))
        return documents


def source_directories(report: Report) -> list[Path]:
    """Where the sources that a report names may be: beside the module."""
    return [] if report.target.path is None else [Path(report.target.path).parent]


verbose_option = click.option(
    "--verbose", is_flag=True, help="Whole stacks, every piece of evidence."
)
bytes_option = click.option(
    "--bytes", "exact", is_flag=True, help="Sizes in the table in bytes, not in kB and MB."
)


def output_options(command: Command) -> Command:
    """Add the options that make OutputOptions, ``output``."""
    report_options = option_group(
        "output",
        OutputOptions,
        bytes_option,
        verbose_option,
        click.option("--annotate", is_flag=True, help="Print annotations for GitHub Actions too."),
        click.option(
            "--ktap",
            metavar="FILE",
            type=click.Path(),
            help="Write it as KTAP too, for kernel test tools; - for stdout.",
        ),
        click.option(
            "--json",
            metavar="FILE",
            type=click.Path(),
            help="Write the report as JSON too; - for stdout.",
        ),
    )
    return excuse_options(decision_options()(report_options(command)))
