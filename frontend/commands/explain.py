"""``kleak explain``: what the fields of a report mean."""

from __future__ import annotations

import textwrap

import click

from kleak.errors import ExitStatus, UsageError
from kleak.snapshots.explanations import EXPLANATIONS, Explanation, FieldText
from kleak.terminal import text_width

_INDENT = " " * 4


def _reports(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in EXPLANATIONS if name.startswith(incomplete)]


@click.command(
    epilog="Example: kleak explain meminfo SUnreclaim",
)
@click.argument("report", required=False, shell_complete=_reports)
@click.argument("field", required=False)
def explain(report: str | None, field: str | None) -> int:
    """Describe each field of REPORT that matters for leaks, with the differences between
    versions; with FIELD, those whose name contains it, in any case. Without REPORT, list the
    reports; a word that is none may be the name of a field of any.
    """
    width = text_width()
    if report is None:
        for item in EXPLANATIONS.values():
            click.echo(f"{item.name:<14}{item.path}")
        return ExitStatus.CLEAN
    explanation = EXPLANATIONS.get(report.casefold())
    if explanation is None:
        _look_everywhere(report, field, width)
        return ExitStatus.CLEAN
    fields = _named(explanation, field)
    if not fields:
        names = ", ".join(item.name for item in explanation.fields)
        raise UsageError(f"{report} has no field {field} that matters here; it has {names}")
    if field is None:
        click.echo(_head(explanation, width))
    click.echo("\n".join(_describe(item, width) for item in fields))
    return ExitStatus.CLEAN


def _named(explanation: Explanation, part: str | None) -> list[FieldText]:
    """The fields whose name contains ``part``, all without it."""
    return [
        item
        for item in explanation.fields
        if part is None or part.casefold() in item.name.casefold()
    ]


def _look_everywhere(word: str, field: str | None, width: int) -> None:
    """Describe the fields of any report that are called ``word``, which is no report."""
    found = [
        (explanation.path, item)
        for explanation in EXPLANATIONS.values()
        for item in explanation.fields
        if field is None and word.casefold() in item.name.casefold().split(", ")
    ]
    if not found:
        raise UsageError(f"no report {word}; there are {', '.join(EXPLANATIONS)}")
    for path, item in found:
        click.echo(f"{path}\n{_describe(item, width)}")


def _head(explanation: Explanation, width: int) -> str:
    lines = [explanation.path, *textwrap.wrap(f"needs: {explanation.needs}", width)]
    return "\n".join([*lines, *textwrap.wrap(explanation.shows, width), ""])


def _describe(item: FieldText, width: int) -> str:
    lines = [item.name]
    for text in (item.meaning, None if item.versions is None else f"Versions: {item.versions}"):
        if text is not None:
            lines += textwrap.wrap(text, width, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return "\n".join(lines)
