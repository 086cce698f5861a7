"""What came of calls that failed on purpose, in words that all formats share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kleak.model.error_paths import ErrorPath, ErrorPaths, Outcome
from kleak.model.faults import FailedCall
from kleak.model.report import JudgedSite, Report

SAID_SO = "fault injected on purpose"
SHOWN_FUNCTIONS = 8
_MEANS = {
    Outcome.CRASHED: "the kernel crashed or hung, or the module stays",
    Outcome.LEAKING: "memory stays",
    Outcome.COMPLAINED: "the kernel logged a bug",
    Outcome.SUSPECT: "memory stays, not sure enough",
    Outcome.CLEAN: "the failure was reported, and all was given back",
    Outcome.TOLERATED: "all went on without it, and all was given back",
    Outcome.NOT_REACHED: "the call was not made so often this time",
}


def injected(site: JudgedSite) -> str:
    """When a site leaks, "" where it does so by itself."""
    return "" if site.injected is None else f"{site.injected.when} [{SAID_SO}]"


def path_line(path: ErrorPath) -> str:
    """One failure and how often it was tried."""
    times = "" if path.times == 1 else f", {path.times} times"
    return f"{path.outcome.value}: {path.when}{times}"


def coverage(paths: ErrorPaths) -> list[tuple[str, int, str]]:
    """Each outcome that there was, with the number of failures and what it means."""
    return [
        (outcome.value, paths.count(outcome), _MEANS[outcome])
        for outcome in Outcome
        if paths.count(outcome)
    ]


def headline(paths: ErrorPaths) -> str:
    """How much was tried."""
    reached = paths.calls - len(paths.unreached)
    return (
        f"{len(paths.paths)} failures tried on purpose at {reached} of {paths.calls} calls; "
        f"{len(paths.unreached)} calls are not reached by this exercise"
    )


def call_text(call: FailedCall) -> str:
    """A call that can fail: the function, and where it is called."""
    place = call.place
    where = "?" if place.symbol is None else f"{place.symbol}+{place.offset:#x}"
    source = "" if place.source is None else f" {place.source.file}:{place.source.line}"
    return f"{call.function}() at {where}{source}"


def worst_first(paths: Sequence[ErrorPath]) -> list[ErrorPath]:
    """The failures, those that went wrong first."""
    order = list(Outcome)
    return sorted(paths, key=lambda path: (order.index(path.outcome), path.number))


def sites_of(report: Report, path: ErrorPath) -> Iterator[JudgedSite]:
    """The sites of a report that leak when this call fails."""
    for site in report.every_site:
        if site.injected is not None and site.injected.error_path == path.number:
            yield site


def conclusion(report: Report) -> str:
    """What error paths did besides leaking, in a sentence; "" for nothing."""
    paths = report.error_paths
    if paths is None:
        return ""
    parts = []
    for outcome, does in (
        (Outcome.CRASHED, "crashes, hangs or does not unload"),
        (Outcome.COMPLAINED, "makes the kernel log a bug"),
    ):
        if count := paths.count(outcome):
            parts.append(f"{does} when {count} of its calls {'fails' if count == 1 else 'fail'}")
    if not parts:
        return ""
    return f"{report.target.name} {', and '.join(parts)} ({SAID_SO})."


def text_lines(report: Report, *, verbose: bool) -> list[str]:
    """The section for people; a line that goes on is indented."""
    paths = report.error_paths
    if paths is None:
        return []
    lines = [f"error paths: {headline(paths)}"]
    lines += [f"  {count:4} {name}: {means}" for name, count, means in coverage(paths)]
    for path in worst_first(paths.paths):
        bad = path.outcome in (Outcome.CRASHED, Outcome.COMPLAINED, Outcome.LEAKING)
        if not bad and not verbose and path.outcome is not Outcome.SUSPECT:
            continue
        lines.append(f"  {path_line(path)}")
        ranks = [f"#{site.rank}" for site in sites_of(report, path)]
        if ranks:
            lines.append(f"      sites {', '.join(ranks)}")
        if path.crash is not None:
            lines.append(f"      {path.crash}")
        if path.log:
            log = path.log.splitlines()
            shown = log if verbose else log[:3]
            lines += [f"      | {line}" for line in shown]
            if len(shown) < len(log):
                lines.append(f"      | ... {len(log) - len(shown)} more lines (--verbose)")
    if paths.left:
        lines.append(f"  {len(paths.left)} failures are left to try (--resume SESSION):")
        left = paths.left if verbose else paths.left[:SHOWN_FUNCTIONS]
        lines += [f"      {call_text(call)}, call {nth}" for call, nth in left]
    if verbose and paths.unreached:
        lines.append("  not reached:")
        lines += [f"      {call_text(call)}" for call in paths.unreached]
    if paths.not_tried:
        names = [one.function for one in paths.not_tried]
        shown_names = names if verbose else names[:SHOWN_FUNCTIONS]
        more = len(names) - len(shown_names)
        rest = f" and {more} more (--verbose)" if more else ""
        lines.append(
            f"  not tried, since kleak does not know how they fail here: "
            f"{', '.join(shown_names)}{rest}"
        )
    return lines
