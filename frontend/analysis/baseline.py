"""A baseline: an earlier report, whose sites are known and do not count unless they got worse."""

from __future__ import annotations

from dataclasses import replace

from kleak.analysis.comparison import by_path, is_higher, same_target, side
from kleak.model.report import Evidence, Excuse, JudgedSite, Report


def apply(report: Report, baseline: Report, name: str) -> Report:
    """The report with the sites excused that ``baseline`` has, at no higher rate.

    ``name`` is the baseline's file. A note says how many are known, worse and new; of a baseline
    of another target nothing is known here, and the note says that.
    """
    if not same_target(report, baseline):
        other = baseline.target
        return _noted(report, f"baseline {name} is of {other.kind} {other.name}: nothing is known")
    known = by_path(baseline)
    judged: dict[int, JudgedSite] = {}
    worse = 0
    for path, sites in by_path(report).items():
        if path not in known:
            continue
        before, now = side(known[path], baseline), side(sites, report)
        rates = f"{now.rate:.3g} objects a cycle, {before.rate:.3g} in {name}"
        if is_higher(now, before):
            worse += len(sites)
            worse_now = Evidence("baseline", f"known, but grew: {rates}", 0.0)
            judged |= {
                site.rank: replace(site, evidence=(*site.evidence, worse_now)) for site in sites
            }
            continue
        excuse = Excuse("baseline", f"known: {rates}")
        judged |= {site.rank: replace(site, excuse=site.excuse or excuse) for site in sites}
    new = len(report.sites) - len(judged)
    gone = len(known.keys() - by_path(report).keys())
    note = (
        f"baseline {name}: {len(judged) - worse} known, {worse} worse, {new} new, "
        f"{gone} no longer there"
    )
    marked = tuple(judged.get(site.rank, site) for site in report.sites)
    return _noted(replace(report, sites=marked), note)


def _noted(report: Report, note: str) -> Report:
    return replace(report, trust=replace(report.trust, notes=(*report.trust.notes, note)))
