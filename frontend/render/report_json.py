"""The report as JSON, ``kleak.report/1``. Its schema is docs/report-1.schema.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kleak.model.report import (
    Evidence,
    Group,
    JudgedSite,
    MemoryAccount,
    MergedSession,
    Report,
    Sighting,
    SuppressionUse,
    Verdict,
)
from kleak.model.session import Frame, Tally, Target, Trust
from kleak.render.renderer import Look, Material, Renderer

SCHEMA = "kleak.report/1"


def render(report: Report) -> str:
    """One JSON document with a newline at its end, ASCII only, keys in a stable order."""
    return json.dumps(document(report), indent=2) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The document as plain objects. Sizes are bytes.

    The keys "sessions", "groups", "suppressions", "memory" and "not_shown" are there only where
    sessions were merged, sites grouped, suppressions given, the growth of memory could be
    followed, or sites are left out.
    """
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "kernel": {"release": report.kernel.release, "machine": report.kernel.machine},
        "target": _target(report.target),
        "cycles": report.cycles,
        "trust": _trust(report.trust),
        "totals": {
            verdict.label: _total([site for site in report.every_site if site.verdict is verdict])
            for verdict in sorted(Verdict, reverse=True)
        },
        "sites": [_site(site) for site in report.sites],
    }
    if report.memory is not None:
        found["memory"] = _memory(report.memory)
    if report.merged:
        found["sessions"] = [_session(one) for one in report.merged]
    if report.grouped_by is not None:
        found["grouped_by"] = report.grouped_by
        found["groups"] = [_group(group) for group in report.groups]
    if report.not_shown or report.groups_not_shown:
        found["not_shown"] = {
            "sites": len(report.not_shown),
            "groups": report.groups_not_shown,
        }
    if report.suppressions:
        found["suppressions"] = [_suppression(one) for one in report.suppressions]
    return found


def _memory(memory: MemoryAccount) -> dict[str, Any]:
    return {
        "explained_percent": memory.explained_percent,
        "classes": [
            {
                "name": one.name,
                "growth_bytes": one.growth_bytes,
                "held_bytes": one.held_bytes,
                "noise_bytes": one.noise_bytes,
                "grew": one.grew,
                "unexplained": one.unexplained,
            }
            for one in memory.classes
        ],
    }


def _session(session: MergedSession) -> dict[str, Any]:
    return {
        "name": session.name,
        "kernel": {"release": session.kernel.release, "machine": session.kernel.machine},
        "build_id": session.build_id,
        "started_at": session.started_at,
        "cycles": session.cycles,
        "complete": session.complete,
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "key": group.key,
        "sites": group.sites,
        "outstanding": _tally(group.outstanding),
        "verdict": group.verdict.label,
    }


def _suppression(use: SuppressionUse) -> dict[str, Any]:
    return {
        "file": use.file,
        "line": use.line,
        "pattern": use.pattern,
        "sites": use.sites,
        "outstanding": _tally(use.outstanding),
    }


def _sighting(sighting: Sighting) -> dict[str, Any]:
    return {
        "session": sighting.session,
        "outstanding": _tally(sighting.outstanding),
        "verdict": sighting.verdict.label,
    }


def _target(target: Target) -> dict[str, Any]:
    return {
        "kind": target.kind,
        "name": target.name,
        "path": target.path,
        "parameters": list(target.parameters),
        "version": target.version,
        "build_id": target.build_id,
    }


def _trust(trust: Trust) -> dict[str, Any]:
    return {
        "complete": trust.complete,
        "lost": dict(sorted(trust.lost.items())),
        "repaired": dict(sorted(trust.repaired.items())),
        "observed": dict(sorted(trust.observed.items())),
        "means": dict(sorted(trust.means.items())),
        "witnesses": {name: str(state) for name, state in sorted(trust.witnesses.items())},
        "notes": list(trust.notes),
    }


def _total(sites: Sequence[JudgedSite]) -> dict[str, int]:
    return {
        "sites": len(sites),
        "findings": sum(site.is_finding for site in sites),
        "count": sum(site.outstanding.count for site in sites),
        "bytes": sum(site.outstanding.size_bytes for site in sites),
    }


def _site(site: JudgedSite) -> dict[str, Any]:
    per_cycle = None if site.per_cycle is None else [_tally(tally) for tally in site.per_cycle]
    found = {
        "rank": site.rank,
        "verdict": site.verdict.label,
        "score": site.score,
        "allocator": site.allocator,
        "outstanding": _tally(site.outstanding),
        "requested_bytes": site.requested_bytes,
        "per_cycle": per_cycle,
        "frames": [_frame(frame) for frame in site.frames],
        "allocator_frames": [_frame(frame) for frame in site.allocator_frames],
        "evidence": [_evidence(item) for item in site.evidence],
    }
    if site.sightings:
        found["sightings"] = [_sighting(one) for one in site.sightings]
    if site.parent is not None:
        found["parent"] = {
            "rank": site.parent.rank,
            "by": site.parent.by,
            "says": site.parent.says,
        }
    if site.stacks is not None:
        found["stacks"] = {
            "call_site": _frame(site.stacks.call_site),
            "walked": site.stacks.walked,
            "different": site.stacks.different,
            "shown": site.stacks.shown,
        }
    if site.excuse is not None:
        found["excuse"] = {"by": site.excuse.by, "says": site.excuse.says}
    return found


def _tally(tally: Tally) -> dict[str, int]:
    return {"count": tally.count, "bytes": tally.size_bytes}


def _frame(frame: Frame) -> dict[str, Any]:
    source = frame.source
    return {
        "symbol": frame.symbol,
        "offset": frame.offset,
        "module": frame.module,
        "source": None if source is None else {"file": source.file, "line": source.line},
    }


def _evidence(item: Evidence) -> dict[str, Any]:
    return {"witness": item.witness, "says": item.says, "weight": round(item.weight, 3)}


def _render(material: Material, look: Look) -> str:
    return render(material.report)


RENDERER = Renderer(
    "json", (".json",), f"{SCHEMA}, docs/report-1.schema.json", _render, groups=True
)
