"""A command's manual page in man(7), made from what its --help says.

A paragraph of the help that begins with "Exit status:" becomes that section, the "Example:" at its
end becomes another; the rest is the description.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import click

import kleak

_SPECIAL = str.maketrans(
    {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
)
_EXIT_STATUS = "Exit status:"
_EXAMPLE = "Example:"
_VERBATIM = "\b"
"""click's mark of a paragraph whose lines are kept."""


def man_page(context: click.Context, others: Sequence[str]) -> str:
    """Return the page of the command of ``context``.

    ``others`` are the names of the pages to point to, such as "kleak-run".
    """
    name = context.command_path.replace(" ", "-")
    # When this text came to this machine. A page needs a date, and the version has none.
    day = date.fromtimestamp(Path(__file__).stat().st_mtime)
    paragraphs = inspect.cleandoc(context.command.help or "").split("\n\n")
    statuses = [text for text in paragraphs if text.startswith(_EXIT_STATUS)]
    lines = [
        f'.TH {name.upper().translate(_SPECIAL)} 1 {day} "kleak {kleak.__version__}" "kleak"',
        ".SH NAME",
        rf"{_text(name)} \-",
        *_wrapped(_summary(context)),
        ".SH SYNOPSIS",
        f".B {_text(context.command_path)}",
        _text(" ".join(context.command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs([text for text in paragraphs if text not in statuses]),
    ]
    if isinstance(context.command, click.Group):
        lines += [".SH COMMANDS", *_commands(context, context.command)]
    options = list(_options(context))
    if options:
        lines += [".SH OPTIONS"]
        for option, says in options:
            lines += [".TP", f".B {_text(option)}", *_wrapped(says)]
    for text in statuses:
        lines += [".SH EXIT STATUS", *_wrapped(_sentence(text.removeprefix(_EXIT_STATUS)))]
    if context.command.epilog is not None:
        example = context.command.epilog.removeprefix(_EXAMPLE).strip()
        lines += [".SH EXAMPLES", ".nf", _text(example), ".fi"]
    pointers = [f".BR {_text(other)} (1)" for other in others]
    lines += [".SH SEE ALSO", *(f"{line}," for line in pointers[:-1]), *pointers[-1:]]
    return "\n".join(lines) + "\n"


def _summary(context: click.Context) -> str:
    command = context.command
    text = command.get_short_help_str(limit=200).rstrip(".")
    return text[:1].lower() + text[1:]


def _options(context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            yield record


def _commands(context: click.Context, group: click.Group) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield ".TP"
        yield f".BR {_text(f'{context.command_path}-{name}')} (1)"
        yield from _wrapped(command.get_short_help_str(limit=200))


def _paragraphs(texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number > 0:
            yield ".PP"
        if text.startswith(_VERBATIM):
            shown = textwrap.dedent(text.removeprefix(_VERBATIM).strip("\n"))
            yield from (".nf", *(_text(line) for line in shown.splitlines()), ".fi")
        else:
            yield from _wrapped(text)


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(
        " ".join(text.split()), 70, break_long_words=False, break_on_hyphens=False
    )
    return [_text(line) for line in lines]


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:]


def _text(line: str) -> str:
    """Return ``line`` as roff that prints it, whatever characters it begins with or has."""
    escaped = line.translate(_SPECIAL)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped
