"""The options that say what a report decides, and the exit status that follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click

from kleak.commands.options.option_group import Command, option_group
from kleak.errors import ExitStatus
from kleak.model.report import Report, Verdict

_VERDICTS = {verdict.label: verdict for verdict in sorted(Verdict, reverse=True)}


@dataclass(frozen=True, slots=True)
class Decision:
    """When a report fails: from the verdict called ``fail_on`` on, and where it is incomplete."""

    fail_on: str
    strict: bool

    @property
    def least(self) -> Verdict:
        """The verdict of the least sure site that counts."""
        return _VERDICTS[self.fail_on]

    def status_of(self, report: Report) -> ExitStatus:
        """Return what a report decides. Sites that are excused do not count."""
        if self.strict and not report.trust.complete:
            return ExitStatus.INCOMPLETE
        if any(site.verdict >= self.least and site.excuse is None for site in report.every_site):
            return ExitStatus.FOUND
        return ExitStatus.CLEAN


def decision_options(
    *, site: str = "a site", result: str = "the result"
) -> Callable[[Command], Command]:
    """Add the options that make a Decision, ``decision``; ``site`` and ``result`` are what counts,
    in the words of the help.
    """
    return option_group(
        "decision",
        Decision,
        click.option(
            "--fail-on",
            type=click.Choice(list(_VERDICTS)),
            default=Verdict.LIKELY.label,
            show_default=True,
            help=f"Exit with 1 if {site} has this verdict or a surer one.",
        ),
        click.option("--strict", is_flag=True, help=f"Exit with 5 if {result} is incomplete."),
    )
