"""Lines of a report out of whatever the caller has, and what to do with damaged ones."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from kleak.parsers.errors import ParseError

Source: TypeAlias = str | bytes | Iterable[str] | Iterable[bytes]
OnError: TypeAlias = Literal["raise", "collect"]

# What stands before a kernel line that went through a log: a /dev/kmsg or raw priority, a
# syslog or journal head up to "kernel:", the time since boot, and the caller that
# CONFIG_PRINTK_CALLER adds.
_LOG_PREFIX = re.compile(
    r"""^(?:<\d{1,3}>)?
        (?:(?:[A-Z][a-z]{2}[ ]+\d{1,2}[ ]\d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[0-9:.,+Z-]+)
           [ ]\S+[ ]kernel:[ ]?)?
        (?:\[[ ]*\d+\.\d+\](?:\[[ ]*[TC]\d+\])?[ ]?)?""",
    re.VERBOSE,
)


def iterate_lines(source: Source) -> Iterator[str]:
    """Yield the lines of ``source``, line ends kept, one at a time and split at newlines only.

    Bytes that are not UTF-8 become backslash escapes, so they stay visible and printable.
    """
    if isinstance(source, str):
        # str.splitlines would also cut at form feeds and Unicode separators inside names
        yield from io.StringIO(source, newline="\n")
    elif isinstance(source, bytes):
        for raw in io.BytesIO(source):
            yield raw.decode("utf-8", "backslashreplace")
    else:
        for line in source:
            yield line if isinstance(line, str) else line.decode("utf-8", "backslashreplace")


def undress(line: str) -> str:
    """The line without line end, NUL bytes and log prefix; inner spacing is kept."""
    bare = line.replace("\0", "").rstrip()
    return bare[_log_prefix_length(bare) :]


def _log_prefix_length(line: str) -> int:
    match = _LOG_PREFIX.match(line)
    return match.end() if match else 0


class Damage:
    """Where a parser takes what it cannot read: raised at once, or kept in ``problems``."""

    def __init__(self, errors: OnError, problems: list[ParseError] | None = None) -> None:
        """``problems`` is the caller's list, filled in order when ``errors`` is "collect"."""
        if errors not in ("raise", "collect"):
            raise ValueError(f'errors must be "raise" or "collect", not {errors!r}')
        self._raises = errors == "raise"
        self.problems: list[ParseError] = [] if problems is None else problems

    def report(self, message: str, line_number: int | None = None, line: str | None = None) -> None:
        """Note one damaged record. Raises ParseError unless problems are collected."""
        shown = None if line is None else line.rstrip("\r\n")
        error = ParseError(message, line_number, shown)
        if self._raises:
            raise error
        self.problems.append(error)
