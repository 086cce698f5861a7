"""The options that excuse sites: suppressions and a baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from kleak.analysis import baseline, suppressions
from kleak.analysis.grouping import stand_alone
from kleak.analysis.suppressions import Suppression
from kleak.commands.report_file import read_report
from kleak.errors import UsageError
from kleak.files.names import readable
from kleak.model.report import Report

_F = TypeVar("_F", bound=Callable[..., Any])
_KEY = "kleak.excuses"


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


def excuse_options(command: _F) -> _F:
    """Add the options; find_excuses() returns what they say, so no command has to pass it on."""
    for option in (
        click.option(
            "--suppressions",
            metavar="FILE",
            type=click.Path(),
            multiple=True,
            expose_value=False,
            callback=_remember,
            help="Sites that do not count, in LeakSanitizer's format (leak:PATTERN). "
            "May be given several times.",
        ),
        click.option(
            "--baseline",
            metavar="REPORT",
            type=click.Path(),
            expose_value=False,
            callback=_remember,
            help="An earlier report (JSON, or a session): only what is new or worse counts.",
        ),
    ):
        command = option(command)
    return command


def excuse_files() -> list[str]:
    """The names of the files that the running command was given to excuse sites."""
    given = click.get_current_context().meta.get(_KEY, {})
    known = given.get("baseline")
    return [*(given.get("suppressions") or ()), *(() if known is None else (known,))]


def find_excuses() -> Excuses:
    """Read the files that the running command was given. Raises UsageError for bad ones."""
    given = click.get_current_context().meta.get(_KEY, {})
    rules: list[Suppression] = []
    for name in given.get("suppressions") or ():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{name} is no text: {error}") from error
        rules += suppressions.parse(text, readable(name))
    known = given.get("baseline")
    if known is None:
        return Excuses(tuple(rules))
    return Excuses(tuple(rules), read_report(Path(known)), readable(known))


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    context.meta.setdefault(_KEY, {})[parameter.name] = value
