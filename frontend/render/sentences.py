"""What a report says in sentences, the same in every format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timezone
from statistics import median_low

from kleak.model.report import JudgedSite, Report, Verdict
from kleak.model.session import Tally, Trust
from kleak.model.witnesses import Outcome
from kleak.units import size
from kleak.wording import counted, either, frame_text, plural

LISTED_CYCLES = 6


def closing(report: Report, *, exact: bool = False) -> str:
    """The conclusion, in a sentence or two."""
    leaks = [site for site in report.every_site if site.verdict >= Verdict.LIKELY]
    guilty = [site for site in leaks if site.excuse is None]
    confirmed = [site for site in guilty if site.verdict is Verdict.CONFIRMED]
    name = report.target.name
    cycles = plural(report.cycles, "cycle")
    if guilty:
        held = size(sum(site.outstanding.size_bytes for site in guilty), exact=exact)
        sure = "leaks" if confirmed else "very probably leaks"
        text = (
            f"{name} {sure}: {held} from {places(guilty)} in {cycles}. "
            f"Start with rank {guilty[0].rank}."
        )
    elif leaks:
        text = (
            f"No leak that counts: {'the one' if len(leaks) == 1 else f'all {len(leaks)}'} found "
            f"in {cycles} {either(len(leaks), 'is', 'are')} known or suppressed."
        )
    elif report.sites:
        text = (
            f"No leak that would stand up: memory is outstanding after {cycles}, but too little "
            f"speaks against {name}."
        )
        if report.cycles < 3:
            text += " Three cycles or more would show whether it grows."
    else:
        text = f"No allocation in the scope of {name} was outstanding after {cycles}."
    if not guilty:
        text += _unseen(report.trust)
    return text


def _unseen(trust: Trust) -> str:
    """What limits a result without a leak; the particulars are in the trust line."""
    absent = [name for name, state in sorted(trust.witnesses.items()) if not state.used]
    text = ""
    if not trust.complete:
        text += " The trace is incomplete (see trust), so a leak may have been missed."
    if absent:
        text += f" Not asked: {', '.join(absent)}."
    return text


def places(guilty: Sequence[JudgedSite]) -> str:
    """How many places leak, of sites that count: "1 place", "2 places (3 more hang on these)"."""
    findings = sum(site.is_finding for site in guilty) or len(guilty)
    text = plural(findings, "place")
    if hanging := len(guilty) - findings:
        verb, those = either(hanging, "hangs", "hang"), either(findings, "it", "these")
        text += f" ({hanging} more {verb} on {those})"
    return text


def totals(report: Report, *, exact: bool = False) -> str:
    """Sites, objects and bytes by verdict, in one line."""
    parts = []
    for verdict in sorted(Verdict, reverse=True):
        sites = [site for site in report.every_site if site.verdict is verdict]
        if sites:
            count = sum(site.outstanding.count for site in sites)
            held = size(sum(site.outstanding.size_bytes for site in sites), exact=exact)
            parts.append(f"{len(sites)} {verdict.label} ({plural(count, 'object')}, {held})")
    return f"totals: {', '.join(parts)}"


def trust_line(trust: Trust, *, verbose: bool) -> str:
    """What the tracer missed and which witnesses were asked, in one line."""
    lost = counted(trust.lost)
    if trust.complete:
        word, rest = "complete", "nothing was lost"
        if any("absent: " in how for how in trust.means.values()):
            rest += " of what this kernel shows (see the notes)"
    else:
        word, rest = "INCOMPLETE", f"lost: {', '.join(lost)}"
    parts = [rest]
    used = [name for name, state in sorted(trust.witnesses.items()) if state.used]
    if used:
        parts.append(f"witnesses: {', '.join(used)}")
    for outcome in Outcome:
        others: defaultdict[str, list[str]] = defaultdict(list)
        for name, state in sorted(trust.witnesses.items()):
            if state.outcome is outcome and not state.used:
                others[state.why].append(name)
        named = (
            f"{' and '.join(names)} ({why})" if why else " and ".join(names)
            for why, names in others.items()
        )
        if others:
            parts.append(f"{outcome.value}: {', '.join(named)}")
    unseen = trust.observed.get("frees_of_unseen_allocations", 0)
    if unseen:
        parts.append(f"{unseen} frees by the target of what it was not seen to allocate")
    repaired = counted(trust.repaired)
    if repaired and verbose:
        parts.append(f"made good: {', '.join(repaired)}")
    if verbose:
        parts += [f"{event}: {means}" for event, means in sorted(trust.means.items())]
    return f"trust: {word}; {'; '.join(parts)}"


def kernels(report: Report) -> str:
    """The kernel of a report, or how many there were: "Linux 6.1.0 x86_64", "2 kernels"."""
    found = {one.kernel for one in report.merged} or {report.kernel}
    if len(found) > 1:
        return f"{len(report.merged)} sessions on {len(found)} kernels"
    return f"Linux {report.kernel.release} {report.kernel.machine}"


def day(started_at: float) -> str:
    """The date of a moment in Unix time, UTC: "2026-11-23"."""
    return datetime.fromtimestamp(started_at, timezone.utc).strftime("%Y-%m-%d")


def place(site: JudgedSite) -> str:
    """Where a site allocates, in a line: its innermost frame, or its slab cache without one."""
    return frame_text(site.frames[0]) if site.frames else site.allocator


def growth(per_cycle: Sequence[Tally] | None) -> str:
    """Objects kept per cycle, short: "+3/cycle", "4,2,1,0,0", "~+3/cycle", or "-" if unknown.

    The last is the median of many cycles with different numbers, with how many of them grew.
    """
    if per_cycle is None or len(per_cycle) < 2:
        return "-"
    counts = [tally.count for tally in per_cycle]
    if len(set(counts)) == 1:
        return f"+{counts[0]}/cycle"
    if len(counts) <= LISTED_CYCLES:
        return ",".join(str(count) for count in counts)
    grew = [count for count in counts if count]
    if len(grew) == len(counts):
        return f"~+{median_low(counts)}/cycle"
    return f"+{sum(counts)} in {len(grew)} of {len(counts)}"


def standing(site: JudgedSite) -> tuple[tuple[str, str], ...]:
    """What makes a site no finding by itself, a mark and its reason each; empty if it is one."""
    said = []
    if site.parent is not None:
        said.append((f"hangs on {site.parent.rank}", site.parent.says))
    if site.excuse is not None:
        said.append(("does not count", site.excuse.says))
    return tuple(said)


def stacks_known(site: JudgedSite) -> tuple[str, ...]:
    """How much is known of the stacks of a site, a sentence; empty where that is all of them."""
    sample, count = site.stacks, site.outstanding.count
    if sample is None or (sample.walked >= count and sample.different == 1):
        return ()
    if sample.walked == 0:
        alone = len(site.frames) + len(site.allocator_frames) == 1
        shown = "the call site alone" if alone else "that of objects that were freed"
        return (f"stacks: none of {count:,} walked; shown is {shown}",)
    said = f"stacks: {sample.walked:,} of {count:,} walked"
    if sample.different == 1:
        return (f"{said}, all the same",)
    return (f"{said}, {sample.different:,} differ; shown is that of {sample.shown:,}",)
