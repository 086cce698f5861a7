"""``kleak report``: saved sessions, again and in other formats."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from kleak.analysis.judge import judge
from kleak.analysis.merge import Judged, SiteKey, merge, site_id, site_keys
from kleak.analysis.redact import redact_report, redact_session
from kleak.analysis.selection import GROUPINGS, ORDERS, group, sort, top
from kleak.commands.options.decision import Decision, decision_options
from kleak.commands.options.excuses import ExcuseOptions, Excuses, excuse_options
from kleak.commands.options.option_group import option_group
from kleak.commands.options.output import bytes_option, source_directories, verbose_option
from kleak.errors import UsageError
from kleak.files.names import readable
from kleak.files.output_files import check_place, refuse_clashes, write_file
from kleak.render.checkout import locator
from kleak.render.formats import BY_NAME, for_file
from kleak.render.renderer import Capture, Look, Material, Renderer
from kleak.store.reader import read_session
from kleak.terminal import text_width, wants_color


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """Where the report goes, and how it looks: the file, the name of the format."""

    output: str | None
    name: str | None
    verbose: bool
    exact: bool

    @property
    def file(self) -> str | None:
        """The file it goes to; None for standard output."""
        return None if self.output == "-" else self.output


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """What of the sessions is shown."""

    limit: int | None
    order: str
    grouping: str
    redact: bool


format_options = option_group(
    "form",
    FormatOptions,
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        type=click.Path(),
        help="Write it there; its extension tells the format.",
    ),
    click.option(
        "--format", "name", type=click.Choice(list(BY_NAME)), help="Format.  [default: text]"
    ),
    verbose_option,
    bytes_option,
)
selection_options = option_group(
    "selection",
    SelectionOptions,
    click.option(
        "--top",
        "limit",
        type=click.IntRange(1),
        metavar="N",
        help="Show the first N sites (or groups) only; all of them count.",
    ),
    click.option(
        "--sort", "order", type=click.Choice(list(ORDERS)), default="rank", show_default=True
    ),
    click.option(
        "--group-by", "grouping", type=click.Choice(GROUPINGS), default="site", show_default=True
    ),
    click.option(
        "--redact", is_flag=True, help="Leave out addresses, comms, host name and directories."
    ),
)


@click.command(
    epilog="Example: kleak report kleak-leaky-20261123T101500.kleak -o leaky.html",
)
@click.argument("sessions", metavar="SESSION...", nargs=-1, required=True, type=click.Path())
@format_options
@selection_options
@decision_options()
@excuse_options
def report(
    sessions: tuple[str, ...],
    form: FormatOptions,
    selection: SelectionOptions,
    decision: Decision,
    excuses: ExcuseOptions,
) -> int:
    """Show what was found in one or more saved sessions. Needs no root, and no target.

    Several sessions of the same target become one report: which of them have a site, on which
    kernels, since when.

    Exit status: 0 nothing found, 1 a leak found (see --fail-on), 2 usage, 5 incomplete with
    --strict.
    """
    renderer = find_renderer(form.file, form.name)
    if selection.grouping != "site" and not renderer.groups:
        able = ", ".join(one.name for one in BY_NAME.values() if one.groups)
        raise UsageError(f"--group-by needs one of the formats {able}: {renderer.name} has stacks")
    if selection.grouping == "process" and selection.redact:
        raise UsageError("--group-by process needs what --redact leaves out")
    refuse_clashes({"-o": form.file}, (*sessions, *excuses.files))
    if form.file is not None:
        check_place(form.file)
    excused = excuses.read()
    if selection.redact:
        excused = excused.without_directories()
    material = gather(sessions, selection, excused)
    color = form.file is None and wants_color(sys.stdout)
    locate = locator(source_directories(material.report))
    look = Look(form.verbose, text_width(), color, decision.least, form.exact, locate)
    shown = renderer.render(material, look)
    data = shown.encode() if isinstance(shown, str) else shown
    if form.file is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_file(form.file, data)
    return decision.status_of(material.report)


def find_renderer(file: str | None, name: str | None) -> Renderer:
    """Return the format that is asked for, by its name or by the extension of ``file``.

    Raises UsageError where the extension means none, or a binary one would go to a terminal.
    """
    renderer = BY_NAME["text"]
    if name is not None:
        renderer = BY_NAME[name]
    elif file is not None:
        found = for_file(Path(file).name)
        if found is None:
            raise UsageError(f"{file}: no format has this extension; give one with --format")
        renderer = found
    if renderer.binary and file is None and sys.stdout.isatty():
        raise UsageError(
            f"{renderer.name} is binary and no terminal can show it: "
            f"give a file, such as -o report{renderer.extensions[0]}"
        )
    return renderer


def gather(paths: Sequence[str], selection: SelectionOptions, excuses: Excuses) -> Material:
    """Read and judge the sessions at ``paths``, merge them if they are several, and select.

    Raises UsageError for what is no session, and for sessions of different targets.
    """
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UsageError("a session is named twice: it would count twice")
    judged = []
    for path in paths:
        session = read_session(Path(path))
        judged.append(Judged(_name(path, selection), session, judge(session)))
    merged = excuses.apply(merge(judged))
    merged = sort(merged, selection.order)
    merged = group(merged, selection.grouping, [one.session for one in judged])
    if selection.limit is not None:
        merged = top(merged, selection.limit)
    captures = tuple(
        _capture(one, keys, selection, excuses)
        for one, keys in zip(judged, site_keys(judged), strict=True)
    )
    return Material(redact_report(merged) if selection.redact else merged, captures)


def _name(path: str, selection: SelectionOptions) -> str:
    return readable(Path(path).name if selection.redact else path)


def _capture(
    one: Judged, keys: Sequence[SiteKey], selection: SelectionOptions, excuses: Excuses
) -> Capture:
    ids = {site.rank: site_id(key) for site, key in zip(one.report.sites, keys, strict=True)}
    selected = sort(excuses.apply(one.report), selection.order)
    if selection.limit is not None:
        selected = replace(selected, sites=selected.sites[: selection.limit])
    session = redact_session(one.session) if selection.redact else one.session
    return Capture(
        one.name,
        session,
        redact_report(selected) if selection.redact else selected,
        tuple(ids[site.rank] for site in selected.sites),
    )
