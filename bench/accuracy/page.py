"""docs/accuracy.md: the scores as a page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.accuracy.peers import PeerScore
from bench.accuracy.score import Ran, Score, Total, total

HEAD = """# Accuracy

Written by `make accuracy`; nothing here is typed by hand. Each case is a load of
`tests/modules/corpus` (or of a module of the kernel's own, unmodified) in a virtual machine, in
as many cycles as the case says; the truth is in `tests/corpus.py`.

- **found**: a site at `likely` or above has the leaking function in its stack.
- **rank**: of the best site that has it, whatever its verdict.
- **exact**: that site has the true allocator, and in each cycle the true number of objects and
  bytes (bytes where kernels agree on them).
- **precision**: of all sites at `likely` or above, those that have the leaking function.
"""


PEERS = """## Other tools on the same modules

Each ran once over all cases (not the kernel's own modules), and what it said in the end counts.
Neither can name the functions of a module that is gone: their addresses were looked up for them.
A function counts as exact where its stacks have as many objects as it leaked in all cycles.
"""


WAYS = """## How each event is heard of

The tracer takes the first way that the kernel offers. Raw tracepoints and fentry have a guard of
their own each, so an interrupt loses nothing but what it interrupts; see limitations.md for what
no way shows.
"""


def render(kernels: Mapping[str, Ran], *, expected: int) -> str:
    """The page for what ran, by kernel release. ``expected``: cases that a whole run has."""
    parts = [HEAD, "## In total\n", summary(kernels), ""]
    if any(ran.peers for ran in kernels.values()):
        parts += [PEERS, *_peers({release: ran.peers for release, ran in kernels.items()}), ""]
    if any(ran.attached for ran in kernels.values()):
        parts += [WAYS, *_ways(kernels), ""]
    for release, ran in kernels.items():
        missing = expected - len(ran.scores) - len(ran.absent)
        parts += [f"## {release}\n"]
        if ran.commit:
            parts += [f"Run at commit {ran.commit}.\n"]
        if ran.absent:
            parts += [f"This kernel has no module {', '.join(f'`{one}`' for one in ran.absent)}.\n"]
        if missing:
            parts += [f"{missing} of {expected} cases were not run.\n"]
        exceptions = [line for one in ran.scores for line in _exceptions(one)]
        parts += ["Exceptions:\n" if exceptions else "No exceptions.\n"]
        parts += [*exceptions, ""] if exceptions else []
        parts += _table(
            ("case", "cycles", "found", "verdict", "rank", "exact", "sites reported"),
            [_row(one) for one in ran.scores],
        )
        parts.append("")
    return "\n".join(parts)


def summary(kernels: Mapping[str, Ran]) -> str:
    """The totals as a table, a row for each kernel and one for all."""
    rows = [_total_row(release, total(ran.scores)) for release, ran in kernels.items()]
    if len(kernels) > 1:
        every = (one for ran in kernels.values() for one in ran.scores)
        rows.append(_total_row("all", total(every)))
    names = ("kernel", "leaks", "recall", "of these confirmed", "precision", "true site first",
             "exact", "innocents", "accused")  # fmt: skip
    return "\n".join(_table(names, rows))


def _ways(kernels: Mapping[str, Ran]) -> list[str]:
    events = dict.fromkeys(event for ran in kernels.values() for event in ran.attached)
    rows = [
        (f"`{event}`", *(ran.attached.get(event, "") for ran in kernels.values()))
        for event in events
    ]
    return _table(("event", *kernels), rows)


def _peers(others: Mapping[str, Sequence[PeerScore]]) -> list[str]:
    names = ("kernel", "tool", "leaking functions", "found", "exact", "stacks reported",
             "of these with a leak", "with innocent code of the corpus only")  # fmt: skip
    every = [(release, one) for release, scores in others.items() for one in scores]
    rows = [_peer_row(release, one) for release, one in every]
    missing = [
        f"- {one.peer} on {release} did not find: {', '.join(f'`{name}`' for name in one.missing)}."
        for release, one in every
        if one.missing
    ]
    return [*_table(names, rows), "", *missing]


def _peer_row(release: str, one: PeerScore) -> tuple[str, ...]:
    figures = (one.functions, one.found, one.exact, one.reported, one.right, one.accused)
    return (release, one.peer, *map(str, figures))


def _total_row(name: str, sums: Total) -> tuple[str, ...]:
    return (
        name,
        str(sums.leaks),
        f"{sums.recall:.3f} ({sums.found})",
        str(sums.confirmed),
        f"{sums.precision:.3f} ({sums.right} of {sums.reported})",
        str(sums.first),
        str(sums.exact),
        str(sums.innocents),
        str(sums.accused),
    )


def _row(one: Score) -> tuple[str, ...]:
    leaks = one.case.leak is not None
    return (
        one.case.name,
        str(one.case.cycles),
        ("yes" if one.found else "NO") if leaks else "",
        one.verdict or "",
        "" if one.rank is None else str(one.rank),
        ("yes" if one.exact else "NO") if leaks else "",
        str(one.reported),
    )


def _exceptions(one: Score) -> list[str]:
    said = []
    if one.failure and not one.case.init_may_fail:
        said.append(f"the run failed: {one.failure}")
    if one.case.leak is not None and not one.found:
        said.append(f"not found (best verdict of the true site: {one.verdict or 'none'})")
    elif one.case.leak is not None and one.rank != 1:
        said.append(f"the true site has rank {one.rank}")
    if one.case.leak is not None and not one.exact:
        said.append("counts are not exact")
    if one.first_wrong:
        said.append(f"accused in error: {one.first_wrong}")
    if one.losses:
        said.append(f"the trace is incomplete: {one.losses}")
    return [f"- `{one.case.name}`: {'; '.join(said)}."] if said else []


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
