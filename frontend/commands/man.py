"""``kleak man``: the manual pages, made from the commands themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from kleak.commands.man_page import man_page
from kleak.errors import ExitStatus, UsageError


def _commands(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    root = context.find_root()
    return root.command.shell_complete(root, incomplete) if incomplete[:1] != "-" else []


@click.command(epilog="Example: kleak man module")
@click.argument("command", required=False, shell_complete=_commands)
@click.option(
    "--save",
    "directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Save all pages in DIR, such as /usr/local/share/man/man1, and show none.",
)
@click.pass_context
def man(context: click.Context, command: str | None, directory: Path | None) -> int:
    """Show the manual page of COMMAND, or of kleak itself.

    On a terminal man shows it; elsewhere its source is printed, for man(7) formatters.
    """
    root = context.find_root()
    pages = {name: _context_of(name, root) for name in _names(root)}
    if directory is not None:
        if command is not None:
            raise UsageError("--save saves all pages: name no command")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name, subject in pages.items():
                page = man_page(subject, [other for other in pages if other != name])
                (directory / f"{name}.1").write_text(page, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot save pages in {directory}: {error.strerror}") from error
        return ExitStatus.CLEAN
    wanted = "kleak" if command is None else f"kleak-{command}"
    if wanted not in pages:
        raise UsageError(f"no command {command}; 'kleak --help' lists them")
    page = man_page(pages[wanted], [other for other in pages if other != wanted])
    reader = shutil.which("man") if sys.stdout.isatty() else None
    if reader is None:
        click.echo(page, nl=False)
        return ExitStatus.CLEAN
    subprocess.run([reader, "-l", "-"], input=page.encode(), check=False)
    return ExitStatus.CLEAN


def _names(root: click.Context) -> list[str]:
    assert isinstance(root.command, click.Group)
    return ["kleak", *(f"kleak-{name}" for name in root.command.list_commands(root))]


def _context_of(page: str, root: click.Context) -> click.Context:
    name = page.removeprefix("kleak").removeprefix("-")
    if not name:
        return root
    assert isinstance(root.command, click.Group)
    command = root.command.get_command(root, name)
    assert command is not None
    return click.Context(command, info_name=name, parent=root)
