"""Witness: names in procfs, debugfs or slab, or of devices, that were not there before and stayed.

The target asked for the name, is unloaded, and the name is still there: nobody will take it back.
"""

from __future__ import annotations

import re
from itertools import pairwise

from kleak.analysis.findings import Finding
from kleak.analysis.session_reports import first_and_last, once_per_session
from kleak.analysis.weights import Fact
from kleak.analysis.witnesses import kernel_log
from kleak.frames.names import base_name
from kleak.frames.scope import in_scope
from kleak.frames.stacks import split_allocator
from kleak.model.session import Frame, Session, TracedSite
from kleak.wording import either

NAME = "registered names"
SHOWN_NAMES = 2
_DEVICE = re.compile(
    r"_*(?:root_device_register|device_create\w*|platform_device_(?:alloc|register\w*))"
)
# Where the names are, the function that was asked to register one, and those that allocate the
# registered thing itself: what hangs on it (attributes, index nodes) says nothing more.
_REGISTRIES = (
    ("/proc/", re.compile(r"_*(?:proc_\w+|create_proc\w*)"), re.compile(r"_*proc_create\w*")),
    (
        "/sys/kernel/debug/",
        re.compile(r"_*debugfs_create\w*"),
        re.compile(r"_*d_alloc\w*|alloc_inode|new_inode\w*"),
    ),
    (
        "/sys/kernel/slab/",
        re.compile(r"_*kmem_cache_create\w*"),
        re.compile(r"_*(?:do_)?kmem_cache_create\w*|create_cache"),
    ),
    ("/sys/devices/", _DEVICE, _DEVICE),
)
# Memory that goes when its device does.
_MANAGED = re.compile(r"_*devm_\w+")


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge by the names that are new in the registry which the target called.

    None for other calls, where nothing was unloaded, and where the names were not read twice.
    """
    new = _new_names(session)
    if new is None or not session.cycles or session.cycles[-1].unloaded_at_ns is None:
        return None
    if session.target.kind != "module":
        return None
    allocator_frames, rest = split_allocator(site.frames)
    where = next((i for i, frame in enumerate(rest) if in_scope(frame, session.target)), None)
    if where is None:
        return None
    between = rest[:where]
    if not between:
        managed = any(_is(frame, _MANAGED) for frame in allocator_frames)
        return _judge_managed(new, session) if managed else None
    for directory, registers, allocates in _REGISTRIES:
        if _is(between[-1], registers) and _is(between[0], allocates):
            names = [name for name in new if name.startswith(directory)]
            # With fewer names than objects, some names were taken back, or are another's.
            if len(names) < max(site.outstanding.count, 1):
                return None
            return Finding(NAME, Fact.NAME_STAYS, f"{_listed(names)} still registered")
    return None


def _judge_managed(new: list[str], session: Session) -> Finding | None:
    names = [name for name in new if name.startswith("/sys/devices/")]
    if not names or not _made_devices(session):
        return None
    says = f"managed memory goes when its device does, and {_listed(names)} there still"
    return Finding(NAME, Fact.DEVICE_STAYS, says)


@once_per_session
def _made_devices(session: Session) -> bool:
    """Whether anything is outstanding of a device that the target itself made."""
    for site in session.sites:
        _, rest = split_allocator(site.frames)
        for inner, outer in pairwise(rest):
            if in_scope(outer, session.target) and _is(inner, _DEVICE):
                return True
    return False


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    verb = either(len(names), "is", "are")
    shown = ", ".join(names[:SHOWN_NAMES])
    return f"{shown}{more}, new since the start, {verb}"


def _is(frame: Frame, pattern: re.Pattern[str]) -> bool:
    return frame.symbol is not None and pattern.fullmatch(base_name(frame.symbol)) is not None


@once_per_session
def _new_names(session: Session) -> list[str] | None:
    reports = first_and_last(session, NAME)
    if reports is None:
        return None
    before, after = (set(text.splitlines()) for text in reports)
    # A cache that was destroyed with objects in it stays because of these.
    kept = {f"/sys/kernel/slab/{cache}" for cache in kernel_log.destroyed_caches(session)}
    return sorted(after - before - kept)
