"""/proc/allocinfo (from 6.10 on), printed by allocinfo_show() in lib/alloc_tag.c.

    allocinfo - version: 1.0
    #     <size>  <calls> <tag info>
               0        0 init/main.c:1357 func:do_initcalls
            4096        1 drivers/leaky/leaky.c:12 [leaky] func:leak_it

Version 2.0 adds " accurate:no" to rows whose counter may have missed something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.errors import ParseError

_VERSION = re.compile(r"allocinfo - version: (\d+\.\d+)")
_ROW = re.compile(
    r"(?P<size>-?\d+)\s+(?P<calls>\d+)\s+(?P<file>\S.*?):(?P<line>\d+)"
    r"(?: \[(?P<module>[^\]]+)\])? func:(?P<function>\S+)(?P<rest>(?: \S+:\S+)*)"
)


@dataclass(frozen=True, slots=True)
class CallSite:
    """One allocation site: a line of source, with what is outstanding there now.

    ``size_bytes`` may be below 0: memory that was charged elsewhere and freed here.
    ``module`` is None for the kernel's own code. ``accurate`` is False where the kernel says so.
    """

    file: str
    line: int
    module: str | None
    function: str
    size_bytes: int
    calls: int
    accurate: bool = True


@dataclass(frozen=True, slots=True)
class Allocinfo:
    """A whole report, in the kernel's order. ``version`` is None where the header is missing."""

    version: str | None
    sites: tuple[CallSite, ...]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> Allocinfo:
    """Parse one report.

    Raises ParseError at a damaged row and where a second report begins; with
    errors="collect" these go to ``problems`` and the first report is the result.
    """
    damage = Damage(errors)
    found: Allocinfo | None = None
    for report in stream(source, errors=errors):
        if found is not None:
            damage.report("a second /proc/allocinfo begins; read it with stream()")
            break
        found = report
    if found is None:
        raise ParseError("no /proc/allocinfo in this text")
    return Allocinfo(found.version, found.sites, (*found.problems, *damage.problems))


def stream(source: Source, *, errors: OnError = "raise") -> Iterator[Allocinfo]:
    """Yield one Allocinfo for each report in ``source``; a version line begins the next."""
    version: str | None = None
    sites: list[CallSite] = []
    damage = Damage(errors)
    for number, line in enumerate(iterate_lines(source), 1):
        bare = undress(line).strip()
        header = _VERSION.fullmatch(bare)
        if header is not None:
            if sites or damage.problems:
                yield Allocinfo(version, tuple(sites), tuple(damage.problems))
            version, sites, damage = header[1], [], Damage(errors)
            if version.split(".")[0] not in ("1", "2"):
                damage.report(f"allocinfo version {version} is not known", number, line)
            continue
        if not bare or bare.startswith("#"):
            continue
        match = _ROW.fullmatch(bare)
        if match is None:
            damage.report("not an allocinfo row", number, line)
            continue
        sites.append(
            CallSite(
                file=match["file"],
                line=int(match["line"]),
                module=match["module"],
                function=match["function"],
                size_bytes=int(match["size"]),
                calls=int(match["calls"]),
                accurate=" accurate:no" not in match["rest"],
            )
        )
    if version is not None or sites or damage.problems:
        yield Allocinfo(version, tuple(sites), tuple(damage.problems))
