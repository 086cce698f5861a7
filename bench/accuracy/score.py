"""How good a report is, against the truth. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.accuracy.peers import PeerScore
from tests.support.corpus import Case, Leak

REPORTED = ("confirmed", "likely")


@dataclass(frozen=True, slots=True)
class Score:
    """One case. ``reported`` are sites at likely or above, ``right`` those of them that hold the
    true function. ``rank`` is that of the best site that holds it, whatever its verdict. ``exact``
    is whether some site with it has the true allocator, and counts and bytes in each cycle.
    """

    case: Case
    failure: str | None
    reported: int
    right: int
    rank: int | None
    verdict: str | None
    exact: bool | None
    complete: bool
    first_wrong: str | None = None
    losses: str | None = None

    @property
    def found(self) -> bool:
        """Whether a leak was reported by its function."""
        return self.right > 0


@dataclass(frozen=True, slots=True)
class Ran:
    """What ran on one kernel. ``absent`` are the cases for which it has no module; ``attached``
    is how the tracer heard of each event, ``commit`` the state of the code at the whole run.
    """

    scores: Sequence[Score]
    peers: Sequence[PeerScore] = ()
    absent: Sequence[str] = ()
    attached: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""


def score(case: Case, record: Mapping[str, Any]) -> Score:
    """Compare the record of a case with its truth."""
    report = record["report"]
    if report is None:
        return Score(case, record["failure"], 0, 0, None, None, None, False)
    sites = report["sites"]
    reported = [site for site in sites if site["verdict"] in REPORTED]
    failure = record["failure"]
    trust = report["trust"]
    losses = ", ".join(f"{name} {count}" for name, count in trust["lost"].items()) or None
    leak = case.leak
    if leak is None:
        wrong = describe(reported[0]) if reported else None
        return Score(
            case, failure, len(reported), 0, None, None, None, trust["complete"], wrong, losses
        )
    true = [site for site in sites if holds(site, leak.function)]
    right = [site for site in reported if holds(site, leak.function)]
    wrongs = [site for site in reported if not holds(site, leak.function)]
    return Score(
        case,
        failure,
        len(reported),
        len(right),
        true[0]["rank"] if true else None,
        true[0]["verdict"] if true else None,
        any(is_exact(site, leak, case.cycles) for site in true),
        trust["complete"],
        describe(wrongs[0]) if wrongs else None,
        losses,
    )


def holds(site: Mapping[str, Any], function: str) -> bool:
    """Whether the function of the target is in the site's stack."""
    return any(
        frame["symbol"] is not None and frame["symbol"].split(".")[0] == function
        for frame in site["frames"]
    )


def is_exact(site: Mapping[str, Any], leak: Leak, cycles: int) -> bool:
    """Whether allocator, and objects and bytes of every cycle, are the true ones."""
    counts = leak.counts(cycles)
    if site["allocator"] != leak.allocator or len(site["per_cycle"]) != cycles:
        return False
    return all(
        tally["count"] == count
        and (leak.size_bytes is None or tally["bytes"] == count * leak.size_bytes)
        for tally, count in zip(site["per_cycle"], counts, strict=True)
    )


def describe(site: Mapping[str, Any]) -> str:
    """The innermost frames of a site, for a table."""
    names = [
        (frame["symbol"] or hex(frame["offset"]))
        + (f" [{frame['module']}]" if frame["module"] else "")
        for frame in site["frames"][:3]
    ]
    return f"{site['allocator']}: {' < '.join(names)}"


@dataclass(frozen=True, slots=True)
class Total:
    """All cases together. ``recall`` is over leaking cases, ``precision`` over reported sites."""

    leaks: int
    found: int
    confirmed: int
    first: int
    exact: int
    reported: int
    right: int
    innocents: int
    accused: int

    @property
    def recall(self) -> float:
        """Leaking cases whose leak was reported, of all."""
        return self.found / self.leaks if self.leaks else 1.0

    @property
    def precision(self) -> float:
        """Reported sites that hold the true function, of all."""
        return self.right / self.reported if self.reported else 1.0


def total(scores: Iterable[Score]) -> Total:
    """Add the cases up."""
    every: Sequence[Score] = tuple(scores)
    leaks = [one for one in every if one.case.leak is not None]
    innocents = [one for one in every if one.case.leak is None]
    return Total(
        leaks=len(leaks),
        found=sum(one.found for one in leaks),
        confirmed=sum(one.verdict == "confirmed" for one in leaks),
        first=sum(one.rank == 1 for one in leaks),
        exact=sum(one.exact is True for one in leaks),
        reported=sum(one.reported for one in every),
        right=sum(one.right for one in every),
        innocents=len(innocents),
        accused=sum(one.reported > 0 for one in innocents),
    )
