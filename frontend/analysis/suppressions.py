"""Suppressions in LeakSanitizer's format: which sites a person has excused, and how.

A rule is a line ``leak:PATTERN``. A pattern matches where it occurs anywhere in the function, the
module or the source file of any frame; ``*`` stands for any text, ``^`` in front and ``$`` at the
end tie it to the ends (TemplateMatch() of LLVM's sanitizer_common).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kleak.errors import UsageError
from kleak.frames.names import base_name
from kleak.model.report import Excuse, JudgedSite, Report, SuppressionUse
from kleak.model.session import Frame, Tally

_KIND = "leak:"


@dataclass(frozen=True, slots=True)
class Suppression:
    """One rule, and where it stands. ``matcher`` is searched for in a text."""

    file: str
    line: int
    pattern: str
    matcher: re.Pattern[str]


def parse(text: str, file: str) -> tuple[Suppression, ...]:
    """Read the rules of a file named ``file``, in their order.

    Lines that are empty or begin with # are skipped. Raises UsageError with file and line for any
    other line that is no rule.
    """
    rules = []
    for number, line in enumerate(text.splitlines(), start=1):
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix(_KIND)
        if pattern == rule:
            raise UsageError(f"{file}:{number}: no rule: {rule!r} (leak:PATTERN is expected)")
        rules.append(Suppression(file, number, pattern, _matcher(pattern, f"{file}:{number}")))
    return tuple(rules)


def _matcher(pattern: str, where: str) -> re.Pattern[str]:
    start = pattern.startswith("^")
    end = pattern.endswith("$")
    inner = pattern[start : len(pattern) - end]
    if not inner.strip("*"):
        raise UsageError(f"{where}: {_KIND}{pattern} would suppress everything")
    if "$" in inner or "^" in inner:
        raise UsageError(f"{where}: {_KIND}{pattern}: ^ stands in front and $ at the end only")
    words = ".*".join(re.escape(word) for word in re.split(r"\*+", inner))
    return re.compile(("^" if start else "") + words + (r"\Z" if end else ""), re.DOTALL)


def apply(report: Report, rules: Sequence[Suppression]) -> Report:
    """The report with the sites excused that a rule matches, and how often each rule did.

    The first rule that matches counts. A site whose address is held by the objects of an excused
    one goes with it, as with LeakSanitizer.
    """
    used: defaultdict[int, list[Tally]] = defaultdict(list)
    excused: dict[int, int] = {}
    sites = []
    for site in report.sites:
        position = _first_match(site, rules)
        parent = site.parent
        if position is None and parent is not None and parent.by == "pointers":
            position = excused.get(parent.rank)
        if position is None:
            sites.append(site)
            continue
        excused[site.rank] = position
        used[position].append(site.outstanding)
        rule = rules[position]
        says = f"suppressed by {rule.file}:{rule.line}: {_KIND}{rule.pattern}"
        sites.append(replace(site, excuse=Excuse("suppression", says)))
    uses = tuple(
        SuppressionUse(
            rule.file,
            rule.line,
            rule.pattern,
            len(used[position]),
            Tally(
                sum(tally.count for tally in used[position]),
                sum(tally.size_bytes for tally in used[position]),
            ),
        )
        for position, rule in enumerate(rules)
    )
    return replace(report, sites=tuple(sites), suppressions=uses)


def _first_match(site: JudgedSite, rules: Sequence[Suppression]) -> int | None:
    texts = [text for frame in (*site.allocator_frames, *site.frames) for text in _texts(frame)]
    return next(
        (
            position
            for position, rule in enumerate(rules)
            if any(rule.matcher.search(text) for text in texts)
        ),
        None,
    )


def _texts(frame: Frame) -> Iterator[str]:
    if frame.symbol is not None:
        yield frame.symbol
        yield base_name(frame.symbol)
    if frame.module is not None:
        yield frame.module
    if frame.source is not None:
        yield frame.source.file
