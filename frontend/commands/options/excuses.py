"""The options that excuse sites: suppressions and a baseline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click

from kleak.analysis import baseline, suppressions
from kleak.analysis.grouping import stand_alone
from kleak.analysis.suppressions import Suppression
from kleak.commands.options.option_group import option_group
from kleak.commands.report_file import read_report
from kleak.errors import UsageError
from kleak.files.names import readable
from kleak.model.report import Report


@dataclass(frozen=True, slots=True)
class Excuses:
    """What does not count. Read before the work begins, so that a bad file costs nothing."""

    rules: tuple[Suppression, ...] = ()
    baseline: Report | None = None
    baseline_name: str = ""

    def apply(self, report: Report) -> Report:
        """The report with the sites marked that do not count."""
        if self.rules:
            report = suppressions.apply(report, self.rules)
        if self.baseline is not None:
            report = baseline.apply(report, self.baseline, self.baseline_name)
        return stand_alone(report)

    def without_directories(self) -> Excuses:
        """The same, with the files' names alone in all that it says."""
        rules = tuple(replace(rule, file=Path(rule.file).name) for rule in self.rules)
        return replace(self, rules=rules, baseline_name=Path(self.baseline_name).name)


@dataclass(frozen=True, slots=True)
class ExcuseOptions:
    """The names of the files that excuse sites."""

    suppressions: tuple[str, ...]
    baseline: str | None

    @property
    def files(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.suppressions, *(() if self.baseline is None else (self.baseline,)))

    def read(self) -> Excuses:
        """Read the files. Raises UsageError for bad ones."""
        rules: list[Suppression] = []
        for name in self.suppressions:
            try:
                text = Path(name).read_text(encoding="utf-8")
            except OSError as error:
                raise UsageError(f"{name}: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise UsageError(f"{name} is no text: {error}") from error
            rules += suppressions.parse(text, readable(name))
        if self.baseline is None:
            return Excuses(tuple(rules))
        known = read_report(Path(self.baseline))
        return Excuses(tuple(rules), known, readable(self.baseline))


excuse_options = option_group(
    "excuses",
    ExcuseOptions,
    click.option(
        "--baseline",
        metavar="REPORT",
        type=click.Path(),
        help="An earlier report (JSON, or a session): only what is new or worse counts.",
    ),
    click.option(
        "--suppressions",
        metavar="FILE",
        type=click.Path(),
        multiple=True,
        help="Sites that do not count, in LeakSanitizer's format (leak:PATTERN). "
        "May be given several times.",
    ),
)
