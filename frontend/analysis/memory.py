"""How much of the growth of the kernel's memory the sites explain, by class of /proc/meminfo.

Compared are moments when nothing was on its way any more: after each cycle has settled. What came
before the end of the first cycle is set-up, and no part of it.

A figure moves by more than a leak does: whole pages and slabs, CPUs that keep pages and slabs of
their own, tasks that come and go. Growth up to NOISE_BYTES_PER_CPU is therefore told as too small
to tell, and with MIN_SNAPSHOTS moments or more growth has to be steady as well (a trend, by
kleak.analysis.trend).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from kleak.analysis.findings import Finding
from kleak.analysis.session_reports import cpus, once_per_session
from kleak.analysis.trend import MIN_SNAPSHOTS, estimate
from kleak.analysis.weights import Fact
from kleak.model.report import ClassGrowth, MemoryAccount
from kleak.model.session import HELD_BY_ANOTHER, HELD_BY_ITS_TASK, MemorySample, Session, TracedSite
from kleak.parsers import zoneinfo
from kleak.units import size

NAME = "meminfo"
_KB, _MB = 1 << 10, 1 << 20

# What a class may grow by with nothing leaked, for each CPU: see docs/verdicts.md for what was
# measured.
NOISE_BYTES_PER_CPU: dict[str, int] = {
    "SUnreclaim": 256 * _KB,
    "VmallocUsed": 128 * _KB,
    "Percpu": 128 * _KB,
    "pages": 2 * _MB,
}
# What sites must hold of a class that did not grow to be contradicted by it.
_CONTRADICTION = 2

_CLASS_OF = {
    "kmalloc": "SUnreclaim",
    "kmem_cache": "SUnreclaim",
    "vmalloc": "VmallocUsed",
    "percpu": "Percpu",
    "pages": "pages",
    "dma": "pages",
}
_NAMES = {
    "SUnreclaim": "unreclaimable slab",
    "VmallocUsed": "vmalloc",
    "Percpu": "per-CPU memory",
    "pages": "pages of no class",
}
# MemTotal less these is pages that no class of /proc/meminfo names.
_NAMED = (
    "MemFree",
    "Buffers",
    "Cached",
    "SwapCached",
    "AnonPages",
    "Slab",
    "VmallocUsed",
    "Percpu",
    "PageTables",
    "SecPageTables",
    "Hugetlb",
    "Balloon",
)
_Fields = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Course:
    """One class: what /proc/meminfo had after each cycle, and what the sites had allocated by
    then that was never freed."""

    name: str
    figures: tuple[int, ...]
    held: tuple[int, ...]
    noise: int

    @property
    def growth(self) -> int:
        return self.figures[-1] - self.figures[0]

    @property
    def explained(self) -> int:
        return self.held[-1] - self.held[0]

    @property
    def grows(self) -> bool:
        return _beyond_noise(self.figures, self.noise)

    @property
    def leaves_unexplained(self) -> bool:
        rest = [figure - held for figure, held in zip(self.figures, self.held, strict=True)]
        return _beyond_noise(rest, self.noise)


def _beyond_noise(figures: Sequence[int], noise: int) -> bool:
    if figures[-1] - figures[0] <= noise:
        return False
    return len(figures) < MIN_SNAPSHOTS or estimate(figures).grows is True


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge by the class that the site's memory is in, and all that the sites hold of it.

    None for a site that holds less than the noise: what the class does, others do; and for
    vmalloc, for which /proc/vmallocinfo speaks.
    """
    if _has_several_modules(session):
        return None
    course = (_courses(session) or {}).get(class_of(site) or "")
    if course is None or course.name == "VmallocUsed":
        return None
    noise, label = course.noise, _NAMES[course.name]
    if sum(tally.outstanding.size_bytes for tally in site.cycles[1:]) <= noise:
        return None
    held, grown = size(course.explained), _signed(course.growth)
    says = f"/proc/meminfo has {grown} of {label}, all sites +{held}"
    if course.grows and 2 * course.growth >= course.explained:
        return Finding(NAME, Fact.CLASS_GREW, says)
    if course.explained > _CONTRADICTION * noise and course.growth < course.explained / 4:
        return Finding(NAME, Fact.CLASS_DID_NOT_GROW, says)
    return None


def account(session: Session) -> MemoryAccount | None:
    """Return what grew over the cycles and how much of it the sites explain.

    None where there was but one cycle, /proc/meminfo was not read, or several modules came and
    went: their cycles overlap.
    """
    if _has_several_modules(session):
        return None
    courses = _courses(session)
    if not courses:
        return None
    growing = [course for course in courses.values() if course.grows]
    explained = None
    if growing:
        grown = sum(course.growth for course in growing)
        known = sum(min(course.explained, course.growth) for course in growing)
        explained = round(100 * known / grown, 1)
    return MemoryAccount(
        explained_percent=explained,
        classes=tuple(
            ClassGrowth(
                course.name,
                course.growth,
                course.explained,
                course.noise,
                course.grows,
                course.grows and course.leaves_unexplained,
            )
            for course in courses.values()
        ),
    )


def notes(found: MemoryAccount | None, cycles: int) -> list[str]:
    """The account as sentences."""
    if found is None:
        return []
    since = f"memory, cycles 2 to {cycles}" if cycles > 2 else "memory, cycle 2"
    growing = [one for one in found.classes if one.grew]
    if not growing:
        return [f"{since}: no class of kernel memory grew by more than noise"]
    grown = ", ".join(
        f"{_NAMES[one.name]} {_signed(one.growth_bytes)} ({size(one.held_bytes)} in sites)"
        for one in growing
    )
    said = [f"{since}: {grown}; explained: {found.explained_percent:.0f} %"]
    said += [
        f"unexplained: {_NAMES[one.name]} grew by {size(one.growth_bytes - one.held_bytes)} more "
        "than the sites hold, and steadily: something is missing here"
        for one in growing
        if one.unexplained
    ]
    return said


def _has_several_modules(session: Session) -> bool:
    return any(cycle.module is not None for cycle in session.cycles)


@once_per_session
def _courses(session: Session) -> dict[str, _Course] | None:
    """The classes that could be followed over two cycles or more."""
    moments = _settled(session)
    if len(moments) < 2:
        return None
    lists, held = _per_cpu_lists(session), _held(session)
    found = {}
    for name, noise in NOISE_BYTES_PER_CPU.items():
        figures = [_figure(name, moment, lists) for moment in moments]
        known = tuple(figure for figure in figures if figure is not None)
        if len(known) == len(moments):
            course = tuple(held[name][moment.cycle - 1] for moment in moments)
            found[name] = _Course(name, known, course, noise * cpus(session))
    return found


def _settled(session: Session) -> list[MemorySample]:
    """One sample a cycle; of the last cycle the one at the end, which waited longest."""
    samples = session.circumstances.samples
    settled = [one for one in samples if one.when == "settled" and one.meminfo_bytes]
    last = [one for one in samples if one.when == "end" and one.meminfo_bytes]
    if settled and last:
        end = last[-1]
        settled[-1] = MemorySample(
            end.time_ns, end.when, settled[-1].cycle, end.outstanding, end.meminfo_bytes
        )
    return settled


def _figure(name: str, moment: MemorySample, lists: Callable[[int], int | None]) -> int | None:
    fields: _Fields = moment.meminfo_bytes
    if name == "VmallocUsed":
        # Stacks of tasks are in it (CONFIG_VMAP_STACK), and come and go with them.
        vmalloc, stacks = fields.get("VmallocUsed"), fields.get("KernelStack")
        return None if vmalloc is None or stacks is None else vmalloc - stacks
    if name != "pages":
        return fields.get(name)
    on_lists = lists(moment.time_ns)
    if on_lists is None or "MemTotal" not in fields:
        return None
    return fields["MemTotal"] - on_lists - sum(fields.get(one, 0) for one in _NAMED)


def _per_cpu_lists(session: Session) -> Callable[[int], int | None]:
    """Bytes on the CPUs' own lists of free pages, by the moment of a sample."""
    found = {}
    for answer in session.circumstances.answers:
        if answer.witness == "zoneinfo":
            zones = zoneinfo.parse(answer.text, errors="collect").zones
            pages = sum(one.per_cpu_pages or 0 for one in zones)
            found[answer.taken_at_ns] = pages * session.kernel.page_bytes
    return found.get


def _held(session: Session) -> dict[str, list[int]]:
    """By class: bytes that were allocated in each cycle or before and never freed."""
    known = [len(site.cycles) for site in session.sites]
    known += [sample.cycle for sample in session.circumstances.samples]
    cycles = max(known, default=0)
    found = {name: [0] * cycles for name in NOISE_BYTES_PER_CPU}
    for site in session.sites:
        name = class_of(site)
        if name is not None:
            for cycle, tally in enumerate(site.cycles):
                found[name][cycle] += tally.outstanding.size_bytes
    return {name: list(accumulate(sizes)) for name, sizes in found.items()}


def class_of(site: TracedSite) -> str | None:
    """The class that a site's memory is in. Pages may have come into the hands of another one."""
    name = _CLASS_OF.get(site.allocator)
    if name == "pages" and site.kept:
        unknown = {None, HELD_BY_ITS_TASK, HELD_BY_ANOTHER}
        if all(one.holder not in unknown for one in site.kept):
            return None
    return name


def _signed(size_bytes: int) -> str:
    return size(size_bytes) if size_bytes < 0 else f"+{size(size_bytes)}"
