"""Taking out what need not be shared: addresses, processes' names, the host's name, paths."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePath

from kleak.analysis.witnesses import kernel_log
from kleak.model.report import JudgedSite, Report
from kleak.model.session import Frame, PointersTo, Session, StackSample, Target

# How a holder is named that is a stack; see kleak.capture.pointers.tasks. In a sentence the number
# of objects is behind it.
_TASK = re.compile(r"^(stack of task) .*")
_TASK_IN_TEXT = re.compile(r"(stack of task) .*?(?= \(\d)")


def redact_session(session: Session) -> Session:
    """The session without its kept allocations, regions, raw answers and host name.

    Judge before: the witnesses need the addresses.
    """
    about = replace(session.circumstances, host=None, answers=())
    return replace(
        session,
        target=_target(session.target),
        sites=tuple(
            replace(
                site,
                frames=_frames(site.frames),
                kept=(),
                stacks=_stacks(site.stacks),
                pointers=_pointers(site.pointers),
            )
            for site in session.sites
        ),
        trust=replace(session.trust, notes=_notes(session.trust.notes, session.target)),
        vmalloc_regions=None if session.vmalloc_regions is None else (),
        circumstances=about,
    )


def redact_report(report: Report) -> Report:
    """The report without addresses of code that has no name, and without directories."""
    return replace(
        report,
        target=_target(report.target),
        sites=tuple(_site(site) for site in report.sites),
        not_shown=tuple(_site(site) for site in report.not_shown),
        trust=replace(report.trust, notes=_notes(report.trust.notes, report.target)),
    )


def _site(site: JudgedSite) -> JudgedSite:
    return replace(
        site,
        frames=_frames(site.frames),
        allocator_frames=_frames(site.allocator_frames),
        stacks=_stacks(site.stacks),
        evidence=tuple(
            replace(one, says=_TASK_IN_TEXT.sub(r"\1", one.says)) for one in site.evidence
        ),
    )


def _pointers(found: PointersTo | None) -> PointersTo | None:
    """Without the names of tasks."""
    if found is None:
        return None
    renamed = [(_TASK.sub(r"\1", what), objects) for what, objects in found.holders]
    return replace(found, holders=()) + PointersTo(holders=tuple(renamed))


def _stacks(sample: StackSample | None) -> StackSample | None:
    return None if sample is None else replace(sample, call_site=_frames((sample.call_site,))[0])


def _frames(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Frames whose offset is an address get 0."""
    return tuple(
        replace(frame, offset=0) if frame.module is None and frame.symbol is None else frame
        for frame in frames
    )


def _target(target: Target) -> Target:
    return replace(target, path=None if target.path is None else PurePath(target.path).name)


def _notes(notes: tuple[str, ...], target: Target) -> tuple[str, ...]:
    """Notes without directories, and without lines of the log, which may hold anything."""
    notes = tuple(note for note in notes if f"{kernel_log.NAME}: " not in note)
    if target.path is None:
        return notes
    return tuple(note.replace(target.path, PurePath(target.path).name) for note in notes)
