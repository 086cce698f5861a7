"""What is concluded from a session: the ranked report. Plain data, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from kleak.model.error_paths import ErrorPaths
from kleak.model.session import Frame, Kernel, StackSample, Tally, Target, Trust


class Verdict(IntEnum):
    """How sure the report is that a site leaks; a greater value is more certain."""

    RETAINED = 0
    POSSIBLE = 1
    LIKELY = 2
    CONFIRMED = 3

    @property
    def label(self) -> str:
        """The word in reports and options."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one witness says of a site. ``weight`` is log-odds (natural): above 0, for a leak."""

    witness: str
    says: str
    weight: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """One site in one of several sessions that were merged. ``session`` names that session."""

    session: str
    outstanding: Tally
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class MergedSession:
    """One of several sessions that were merged. ``started_at`` is Unix time in seconds."""

    name: str
    kernel: Kernel
    build_id: str | None
    started_at: float | None
    cycles: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Parent:
    """The site that another one hangs on: who frees the one has to free the other.

    ``rank`` is the parent's. ``by`` is "pointers" (its objects hold the addresses of these) or
    "time" (no memory could be read, and both were allocated in turn by one call of a function).
    """

    rank: int
    by: str
    says: str


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why a site does not count. ``by`` is "suppression" or "baseline"."""

    by: str
    says: str


@dataclass(frozen=True, slots=True)
class Injected:
    """A call that failed on purpose: the number of the ErrorPath, and ``when`` in a line.

    ``call`` is the function that failed and the one that called it: equal in any build.
    """

    error_path: int
    call: str
    when: str


@dataclass(frozen=True, slots=True)
class JudgedSite:
    """One leak site with its verdict. ``frames[0]`` is the first frame that is no allocator.

    ``allocator_frames`` are the allocator's own frames that were stripped, innermost first.
    ``per_cycle`` is outstanding by the cycle that allocated it, None where cycles are unknown.
    ``score`` is 0 to 100. ``sightings`` are the sessions that have it, where several were merged.
    ``parent`` is the site that it hangs on, ``excuse`` why it does not count, if either is so.
    ``stacks`` is there where they were sampled. ``injected`` is the failure on purpose
    without which it would not leak.
    """

    rank: int
    verdict: Verdict
    score: float
    allocator: str
    outstanding: Tally
    per_cycle: tuple[Tally, ...] | None
    frames: tuple[Frame, ...]
    evidence: tuple[Evidence, ...]
    requested_bytes: int | None = None
    allocator_frames: tuple[Frame, ...] = ()
    sightings: tuple[Sighting, ...] = ()
    parent: Parent | None = None
    excuse: Excuse | None = None
    stacks: StackSample | None = None
    injected: Injected | None = None

    @property
    def is_finding(self) -> bool:
        """Whether it counts, and by itself: neither excused nor hanging on another site."""
        return self.parent is None and self.excuse is None


@dataclass(frozen=True, slots=True)
class SuppressionUse:
    """One rule of a suppression file, with the sites that it excused and what these hold."""

    file: str
    line: int
    pattern: str
    sites: int
    outstanding: Tally


@dataclass(frozen=True, slots=True)
class Group:
    """Sites that have something in common: ``key``. ``verdict`` is the surest of theirs."""

    key: str
    sites: int
    outstanding: Tally
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ClassGrowth:
    """A class of kernel memory from the end of the first cycle to the end of the last.

    ``name`` is a field of /proc/meminfo, or "pages" for what no field names. ``held_bytes`` is
    what the sites hold of it. ``grew``: by more than ``noise_bytes``, and steadily.
    ``unexplained``: so did what the sites do not hold.
    """

    name: str
    growth_bytes: int
    held_bytes: int
    noise_bytes: int
    grew: bool
    unexplained: bool


@dataclass(frozen=True, slots=True)
class MemoryAccount:
    """How the kernel's memory grew over the cycles, and how much of that the sites explain.

    ``explained_percent`` is of all classes that grew, None where none did by more than noise.
    """

    explained_percent: float | None
    classes: tuple[ClassGrowth, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The conclusions. ``sites`` is ranked, best first. kleak.render makes text of it.

    ``merged`` are the sessions that it was made from, if there was more than one. ``groups`` are
    the sites by what ``grouped_by`` names, most bytes first, where that was asked for. ``memory``
    is None where it cannot be told: with one cycle, or for merged sessions.
    ``suppressions`` are the rules that were applied, in the order of their files. ``not_shown`` are
    the sites behind ``sites`` that nobody wants to see one by one, ``groups_not_shown`` is how many
    groups: they count in whatever is said of all. ``error_paths`` is there where calls were made to
    fail.
    """

    kernel: Kernel
    target: Target
    cycles: int
    trust: Trust
    sites: tuple[JudgedSite, ...]
    merged: tuple[MergedSession, ...] = ()
    grouped_by: str | None = None
    groups: tuple[Group, ...] = ()
    memory: MemoryAccount | None = None
    suppressions: tuple[SuppressionUse, ...] = ()
    not_shown: tuple[JudgedSite, ...] = ()
    groups_not_shown: int = 0
    error_paths: ErrorPaths | None = None

    @property
    def every_site(self) -> tuple[JudgedSite, ...]:
        """All sites, shown or not."""
        return self.sites + self.not_shown
