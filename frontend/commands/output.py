"""What the commands that judge have in common: options, where the report goes, exit status."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from kleak.capture.engine.records import Limits
from kleak.capture.engine.sampling import WALK_EVERY
from kleak.capture.read_session import KEPT_OF_A_SITE
from kleak.capture.sites import SITES_KEPT_WHOLE
from kleak.commands.exclusions import Excuses, excuse_files, excuse_options, find_excuses
from kleak.errors import ExitStatus, UsageError
from kleak.files.output_files import check_place, refuse_clashes, write_files
from kleak.model.report import Report, Verdict
from kleak.render import github, ktap, report_json, table
from kleak.render.checkout import locator
from kleak.render.renderer import Look, Material
from kleak.store.writer import SessionWriter
from kleak.terminal import text_width, wants_color

_F = TypeVar("_F", bound=Callable[..., Any])

_KEY = "kleak.output"

VERDICTS = {verdict.label: verdict for verdict in sorted(Verdict, reverse=True)}


@dataclass(frozen=True, slots=True)
class Output:
    """Where a report goes and what it decides. Made before the work begins, so that a path
    which cannot be written costs nothing but a line.
    """

    json: str | None
    verbose: bool
    fail_on: Verdict
    strict: bool
    exact: bool = False
    table_to: TextIO | None = None
    ktap: str | None = None
    annotate: bool = False
    excuses: Excuses = field(default_factory=Excuses)

    @property
    def text_to(self) -> TextIO:
        """Where text for people goes: not where a document was sent."""
        if self.table_to is not None:
            return self.table_to
        return sys.stderr if "-" in (self.json, self.ktap) else sys.stdout

    def check(self) -> None:
        """Raise KleakError if the report could not be written."""
        if self.json == self.ktap == "-":
            raise UsageError("--json - and --ktap -: one of them needs a file")
        for name in (self.json, self.ktap):
            if name not in (None, "-"):
                check_place(str(name))

    def write(self, judged: Report, appendix: str = "") -> ExitStatus:
        """Write the documents, print the report, and return what it decides.

        ``appendix`` is printed at the end. Raises KleakError where a document could not be
        written, when all the rest is done.
        """
        report = self.excuses.apply(judged)
        documents = self._documents(report)
        # Files first: who reads what is printed may go away.
        failure = write_files(one for one in documents if one[0] != "-")
        text_to = self.text_to
        color = wants_color(text_to)
        shown = table.render(
            report, verbose=self.verbose, width=text_width(), color=color, exact=self.exact
        )
        click.echo(shown, file=text_to, nl=False, color=color)
        for name, text in documents:
            if name == "-":
                click.echo(text, nl=False)
        if self.annotate:
            locate = locator(source_directories(report))
            text = github.render(report, fail_on=self.fail_on, locate=locate)
            click.echo(text, file=text_to, nl=False)
        click.echo(appendix, file=text_to, nl=False)
        if failure is not None:
            raise failure
        return status_of(report, self.fail_on, strict=self.strict)

    def _documents(self, report: Report) -> list[tuple[str, str]]:
        """What is asked for besides the table, by where it goes."""
        documents = []
        if self.json is not None:
            documents.append((self.json, report_json.render(report)))
        if self.ktap is not None:
            look = Look(self.verbose, fail_on=self.fail_on)
            documents.append((self.ktap, ktap.render(Material(report, ()), look)))
        return documents


def source_directories(report: Report) -> list[Path]:
    """Where the sources that a report names may be: beside the module."""
    return [] if report.target.path is None else [Path(report.target.path).parent]


def status_of(report: Report, fail_on: Verdict, *, strict: bool) -> ExitStatus:
    """Return what a report decides. Sites that are excused do not count."""
    if strict and not report.trust.complete:
        return ExitStatus.INCOMPLETE
    if any(site.verdict >= fail_on and site.excuse is None for site in report.every_site):
        return ExitStatus.FOUND
    return ExitStatus.CLEAN


bytes_option = click.option(
    "--bytes", "exact", is_flag=True, help="Sizes in the table in bytes, not in kB and MB."
)


def output_options(command: _F) -> _F:
    """Add the options that make an Output."""
    for option in (
        click.option(
            "--json",
            metavar="FILE",
            type=click.Path(),
            help="Write the report as JSON too; - for stdout.",
        ),
        click.option(
            "--ktap",
            metavar="FILE",
            type=click.Path(),
            expose_value=False,
            callback=_remember,
            help="Write it as KTAP too, for kernel test tools; - for stdout.",
        ),
        click.option(
            "--annotate",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Print annotations for GitHub Actions too.",
        ),
        click.option("--verbose", is_flag=True, help="Whole stacks, every piece of evidence."),
        bytes_option,
        click.option(
            "--fail-on",
            type=click.Choice(list(VERDICTS)),
            default=Verdict.LIKELY.label,
            show_default=True,
            help="Exit with 1 if a site has this verdict or a surer one.",
        ),
        click.option("--strict", is_flag=True, help="Exit with 5 if the result is incomplete."),
    ):
        command = option(command)
    return excuse_options(command)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep a value for make_output(), so that no command has to pass it on."""
    context.meta.setdefault(_KEY, {})[parameter.name] = value


def make_output(
    json: str | None,
    verbose: bool,
    fail_on: str,
    strict: bool,
    *,
    exact: bool = False,
    table_to: TextIO | None = None,
    session: str | None = None,
    reads: Iterable[str] = (),
) -> Output:
    """Return the Output of the options, checked. Raises KleakError.

    ``table_to``: where the table goes; standard output if not given, unless the JSON does.
    ``session``: the file of -o; ``reads``: files that are read, besides those that excuse.
    """
    given = click.get_current_context().meta.get(_KEY, {})
    outputs = {"-o": session, "--json": json, "--ktap": given.get("ktap")}
    refuse_clashes(outputs, [*reads, *excuse_files()])
    output = Output(
        json,
        verbose,
        VERDICTS[fail_on],
        strict,
        exact,
        table_to,
        given.get("ktap"),
        given.get("annotate", False),
        find_excuses(),
    )
    output.check()
    return output


def scope_options(command: _F) -> _F:
    """Add the options that say which code of the running kernel counts."""
    for option in (
        click.option(
            "--own-calls",
            is_flag=True,
            help="Only what functions in scope allocate by their own call counts, and not what "
            "others do on their behalf: a third of the cost for each that is out of scope.",
        ),
        click.option(
            "--module",
            "modules",
            metavar="NAME",
            multiple=True,
            help="A module that is loaded already, whose functions count. "
            "May be given several times.",
        ),
        click.option(
            "--scope",
            metavar="GLOB",
            multiple=True,
            help="Kernel functions that count, where they are on the stack of an allocation. "
            "May be given several times. [default: the whole kernel]",
        ),
    ):
        command = option(command)
    return command


stacks_option = click.option(
    "--stacks",
    "walk_every",
    metavar="N",
    type=click.IntRange(1),
    default=WALK_EVERY,
    show_default=True,
    help="Where all of the kernel counts, or own calls: walk the stack of one in N allocations of "
    "each call site, and count the others by call site; 1 walks all, at a cost.",
)
keep_option = click.option(
    "--keep",
    type=click.IntRange(0),
    default=KEPT_OF_A_SITE,
    show_default=True,
    metavar="N",
    help="Outstanding allocations of a site to save, with address, age and process; in all "
    f"at most {SITES_KEPT_WHOLE} times as many.",
)


def session_options(command: _F) -> _F:
    """Add the options that say what is saved, and where."""
    output = click.option(
        "-o",
        "--output",
        metavar="FILE",
        type=click.Path(),
        help="Session file to write, for kleak report. [default: kleak-TARGET-TIME.kleak]",
    )
    return keep_option(output(command))


@contextmanager
def saved_session(output: str | None, target: str) -> Iterator[SessionWriter]:
    """Make the session file ``output``, or one named after ``target`` and the time.

    Says on standard error where it is, however the capture ends; a capture without a cycle
    leaves none, and an older one as it was. Raises KleakError where it cannot be made.
    """
    with open_session(output, target) as writer:
        try:
            yield writer
        finally:
            if writer.saved_cycles == 0:
                writer.discard()
            else:
                ends = f", up to cycle {writer.saved_cycles}" if writer.failed else ""
                # That nobody reads this is no reason to leave the reports unwritten.
                with suppress(BrokenPipeError):
                    click.echo(
                        f"session: {writer.path}{ends} (kleak report shows it again)", err=True
                    )


def open_session(output: str | None, target: str) -> SessionWriter:
    """Return the writer of the session file ``output``, or of a new one that is named after
    ``target`` and the time. Raises KleakError where it cannot be made.
    """
    if output is not None:
        return SessionWriter(Path(output))
    # A glob is no good in a file name, and a module's name is limited to 55 characters.
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", target).strip("-")[:55] or "kernel"
    begin = f"kleak-{name}-{time.strftime('%Y%m%dT%H%M%S')}"
    path, number = Path(f"{begin}.kleak"), 1
    while True:
        try:
            return SessionWriter(path, new=True)
        except FileExistsError:  # another one began in the same second
            number += 1
            path = Path(f"{begin}-{number}.kleak")


def tracer_options(command: _F) -> _F:
    """Add the options that bound and feed the tracer."""
    return tracer_options_from(Limits())(command)


def tracer_options_from(limits: Limits) -> Callable[[_F], _F]:
    """Return what adds the options that bound and feed the tracer, with these defaults."""

    def add(command: _F) -> _F:
        for option in (
            click.option(
                "--max-outstanding",
                type=click.IntRange(1, 16_000_000),
                default=limits.outstanding,
                show_default=True,
                help="Outstanding allocations that fit into the map, at about 180 bytes each.",
            ),
            click.option(
                "--max-stacks",
                type=click.IntRange(1, 1_000_000),
                default=limits.stacks,
                show_default=True,
                help="Distinct stacks that fit into the map, at about 1.3 kB each.",
            ),
            click.option(
                "--kernel-headers",
                metavar="DIR",
                type=click.Path(),
                help="Header tree for bcc, of any version (also KLEAK_KERNEL_HEADERS).",
            ),
        ):
            command = option(command)
        return command

    return add


def kmemleak_option(command: _F) -> _F:
    """Add the option that leaves kmemleak alone."""
    return click.option(
        "--no-kmemleak",
        is_flag=True,
        help="Do not ask kmemleak, where the kernel has it: its scans may take minutes where "
        "there is much memory.",
    )(command)


def make_limits(max_outstanding: int, max_stacks: int) -> Limits:
    """Return the map sizes for the options; totals need a row for a stack in each cycle."""
    default = Limits()
    return Limits(max_outstanding, max_stacks, max(default.totals, 2 * max_stacks))
