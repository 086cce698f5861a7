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
from kleak.commands.exclusions import Excuses, excuse_files, excuse_options, find_excuses
from kleak.commands.output import (
    VERDICTS,
    bytes_option,
    source_directories,
    status_of,
)
from kleak.errors import UsageError
from kleak.files.names import readable
from kleak.files.output_files import check_place, refuse_clashes, write_file
from kleak.model.report import Verdict
from kleak.render.checkout import locator
from kleak.render.formats import BY_NAME, for_file
from kleak.render.renderer import Capture, Look, Material, Renderer
from kleak.store.reader import read_session
from kleak.terminal import text_width, wants_color


@dataclass(frozen=True, slots=True)
class Wish:
    """What of the sessions is wanted."""

    order: str
    limit: int | None
    grouping: str
    redact: bool
    excuses: Excuses


@click.command(
    epilog="Example: kleak report kleak-leaky-20261123T101500.kleak -o leaky.html",
)
@click.argument("sessions", metavar="SESSION...", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="Write it there; its extension tells the format.",
)
@click.option("--format", "name", type=click.Choice(list(BY_NAME)), help="Format.  [default: text]")
@click.option("--verbose", is_flag=True, help="Whole stacks, every piece of evidence.")
@bytes_option
@click.option(
    "--top",
    "limit",
    type=click.IntRange(1),
    metavar="N",
    help="Show the first N sites (or groups) only; all of them count.",
)
@click.option("--sort", "order", type=click.Choice(list(ORDERS)), default="rank", show_default=True)
@click.option(
    "--group-by", "grouping", type=click.Choice(GROUPINGS), default="site", show_default=True
)
@click.option(
    "--redact", is_flag=True, help="Leave out addresses, comms, host name and directories."
)
@click.option(
    "--fail-on",
    type=click.Choice(list(VERDICTS)),
    default=Verdict.LIKELY.label,
    show_default=True,
    help="Exit with 1 if a site has this verdict or a surer one.",
)
@click.option("--strict", is_flag=True, help="Exit with 5 if the result is incomplete.")
@excuse_options
def report(
    sessions: tuple[str, ...],
    output: str | None,
    name: str | None,
    verbose: bool,
    exact: bool,
    limit: int | None,
    order: str,
    grouping: str,
    redact: bool,
    fail_on: str,
    strict: bool,
) -> int:
    """Show what was found in one or more saved sessions. Needs no root, and no target.

    Several sessions of the same target become one report: which of them have a site, on which
    kernels, since when.

    Exit status: 0 nothing found, 1 a leak found (see --fail-on), 2 usage, 5 incomplete with
    --strict.
    """
    renderer = find_renderer(output, name)
    if grouping != "site" and not renderer.groups:
        able = ", ".join(one.name for one in BY_NAME.values() if one.groups)
        raise UsageError(f"--group-by needs one of the formats {able}: {renderer.name} has stacks")
    if grouping == "process" and redact:
        raise UsageError("--group-by process needs what --redact leaves out")
    refuse_clashes({"-o": output}, (*sessions, *excuse_files()))
    if output not in (None, "-"):
        check_place(str(output))
    excuses = find_excuses().without_directories() if redact else find_excuses()
    material = gather(sessions, Wish(order, limit, grouping, redact, excuses))
    to_stdout = output in (None, "-")
    color = to_stdout and wants_color(sys.stdout)
    locate = locator(source_directories(material.report))
    look = Look(verbose, text_width(), color, VERDICTS[fail_on], exact, locate)
    shown = renderer.render(material, look)
    data = shown.encode() if isinstance(shown, str) else shown
    if to_stdout:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_file(str(output), data)
    return status_of(material.report, VERDICTS[fail_on], strict=strict)


def find_renderer(output: str | None, name: str | None) -> Renderer:
    """Return the format that is asked for, by its name or by the extension of ``output``.

    Raises UsageError where the extension means none, or a binary one would go to a terminal.
    """
    renderer = BY_NAME["text"]
    if name is not None:
        renderer = BY_NAME[name]
    elif output not in (None, "-"):
        found = for_file(Path(str(output)).name)
        if found is None:
            raise UsageError(f"{output}: no format has this extension; give one with --format")
        renderer = found
    if renderer.binary and output in (None, "-") and sys.stdout.isatty():
        raise UsageError(
            f"{renderer.name} is binary and no terminal can show it: "
            f"give a file, such as -o report{renderer.extensions[0]}"
        )
    return renderer


def gather(paths: Sequence[str], wish: Wish) -> Material:
    """Read and judge the sessions at ``paths``, merge them if they are several, and select.

    Raises UsageError for what is no session, and for sessions of different targets.
    """
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UsageError("a session is named twice: it would count twice")
    judged = []
    for path in paths:
        session = read_session(Path(path))
        judged.append(Judged(_name(path, wish), session, judge(session)))
    merged = wish.excuses.apply(merge(judged))
    merged = sort(merged, wish.order)
    merged = group(merged, wish.grouping, [one.session for one in judged])
    if wish.limit is not None:
        merged = top(merged, wish.limit)
    captures = tuple(
        _capture(one, keys, wish) for one, keys in zip(judged, site_keys(judged), strict=True)
    )
    return Material(redact_report(merged) if wish.redact else merged, captures)


def _name(path: str, wish: Wish) -> str:
    return readable(Path(path).name if wish.redact else path)


def _capture(one: Judged, keys: Sequence[SiteKey], wish: Wish) -> Capture:
    ids = {site.rank: site_id(key) for site, key in zip(one.report.sites, keys, strict=True)}
    selected = sort(wish.excuses.apply(one.report), wish.order)
    if wish.limit is not None:
        selected = replace(selected, sites=selected.sites[: wish.limit])
    session = redact_session(one.session) if wish.redact else one.session
    return Capture(
        one.name,
        session,
        redact_report(selected) if wish.redact else selected,
        tuple(ids[site.rank] for site in selected.sites),
    )
