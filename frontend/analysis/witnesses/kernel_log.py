"""Witness: the kernel log, from the start of the capture to its end."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePath

from kleak.analysis.findings import Finding
from kleak.analysis.session_reports import once_per_session, texts
from kleak.analysis.weights import Fact
from kleak.frames.names import base_name
from kleak.frames.scope import in_scope
from kleak.frames.stacks import split_allocator
from kleak.model.session import Session, Target, TracedSite
from kleak.parsers import kmsg
from kleak.wording import either

NAME = "kernel log"
TAGS = "allocation tags"
SHOWN_LINES = 5
SAME_CALL_LINES = 3
_WARNING = 4  # KERN_WARNING; what is worse has smaller numbers

_FRAME = re.compile(r"\S+\+0x[0-9a-f]+/0x[0-9a-f]+")
_HEADLINE = re.compile(r"WARNING: |BUG: |BUG \S+ \(|general protection|Oops|INFO: ")
# What any module of one's own brings about, a leak or not.
_OF_COURSE = re.compile(
    r".*(?:taints kernel|Tainting kernel|module verification failed|Modules linked in:"
    r"|memory allocation\(s\) from the module still alive).*"
)


@once_per_session
def _witness_lines(session: Session) -> tuple[kmsg.Witness, ...]:
    return tuple(line for text in texts(session, NAME)[-1:] for line in kmsg.stream(text))


def judge_tags(site: TracedSite, session: Session) -> Finding | None:
    """Judge by the allocation tags of the caller that were not empty when the module went."""
    _, rest = split_allocator(site.frames)
    if not rest or not in_scope(rest[0], session.target) or rest[0].symbol is None:
        return None
    function, source = base_name(rest[0].symbol), rest[0].source
    tags = [line for line in _witness_lines(session) if isinstance(line, kmsg.LeftAtUnload)]
    here = [tag for tag in tags if tag.function == function]
    if source is not None:
        # A call over several lines has one of them here and maybe another there.
        here = [
            tag
            for tag in tags
            if PurePath(tag.file).name == PurePath(source.file).name
            and abs(tag.source_line - source.line) <= SAME_CALL_LINES
            and (tag.function == function or tag.source_line == source.line)
        ]
    if not here:
        return None
    places = sorted({f"{PurePath(tag.file).name}:{tag.source_line}" for tag in here})
    size = sum(tag.size_bytes for tag in here)
    return Finding(
        TAGS,
        Fact.TAG_LEFT,
        f"the kernel log has {size} B of {', '.join(places)} left at unload, {_times(len(here))}",
    )


def judge_caches(site: TracedSite, session: Session) -> Finding | None:
    """Judge by caches that were destroyed with as many objects of this size as are outstanding.

    The event of an allocation does not name its cache. Offsets in the slabs give the size away:
    all of them are multiples of it.
    """
    size = _object_bytes(site)
    if size is None:
        return None
    caches = [
        line
        for line in _witness_lines(session)
        if isinstance(line, kmsg.ObjectsRemaining)
        and line.object_offsets
        and not any(offset % size for offset in line.object_offsets)
    ]
    objects = sum(len(line.object_offsets) for line in caches)
    if not objects or objects != _objects_of(session).get(size):
        return None
    names = sorted({line.cache for line in caches})
    one = either(len(names), "a cache that was", "caches that were")
    says = f"the kernel log counts {objects} objects left in {', '.join(names)}, {one} destroyed"
    return Finding(NAME, Fact.CACHE_LEFT, says)


def destroyed_caches(session: Session) -> set[str]:
    """Caches that are still there only because something was left in them."""
    lines = _witness_lines(session)
    return {
        line.cache
        for line in lines
        if isinstance(line, (kmsg.ObjectsRemaining, kmsg.CacheNotEmpty))
    }


def _object_bytes(site: TracedSite) -> int | None:
    """The size of the site's objects in their slab cache, None where that is not one number."""
    held = site.outstanding
    if site.allocator not in ("kmem_cache", "reclaimable_cache") or held.size_bytes % held.count:
        return None
    return held.size_bytes // held.count


@once_per_session
def _objects_of(session: Session) -> dict[int, int]:
    """Outstanding objects from slab caches, by their size."""
    found: Counter[int] = Counter()
    for site in session.sites:
        held = site.outstanding
        size = _object_bytes(site) if held.count else None
        if size is not None:
            found[size] += held.count
    return found


def notes(session: Session) -> list[str]:
    """What the log says of a leak, or of the module with a warning, as sentences; a few of each."""
    lines = _witness_lines(session)
    counted = {line.cache for line in lines if isinstance(line, kmsg.ObjectsRemaining)}
    found = Counter(_say(line) for line in lines if not _is_told(line, counted))
    if session.target.kind == "module":
        told = {line.log.text for line in lines}
        found.update(_naming(session, session.target, told))
    said = [f"{NAME}: {text}" + _repeated(count) for text, count in found.items()]
    more = len(said) - SHOWN_LINES
    if more > 0:
        said[SHOWN_LINES:] = [f"{NAME}: {more} more kinds of lines like these"]
    return said


def _naming(session: Session, target: Target, told: set[str]) -> list[str]:
    """Warnings and worse that name the target; no stacks, and nothing of ``told``."""
    words = re.compile(
        r"(?<![\w-])" + re.sub("[-_]", "[-_]", re.escape(target.name).replace(r"\-", "-")) + r"\b"
    )
    found = []
    for text in texts(session, NAME)[-1:]:
        for line in kmsg.lines(text):
            worth = line.severity is not None and line.severity <= _WARNING
            if not worth or line.text in told or not words.search(line.text):
                continue
            if _OF_COURSE.fullmatch(line.text):
                continue
            if _FRAME.search(line.text) and not _HEADLINE.match(line.text):
                continue
            found.append(line.text)
    return found


def _is_told(line: kmsg.Witness, counted: set[str]) -> bool:
    """Whether another line or another witness tells this: the caches of ``counted``, kmemleak."""
    if isinstance(line, kmsg.CacheNotEmpty):
        return line.cache in counted
    return isinstance(line, (kmsg.KmemleakSuspects, kmsg.KmemleakDisabled))


def _say(line: kmsg.Witness) -> str:
    if isinstance(line, kmsg.ObjectsRemaining):
        objects = len(line.object_addresses)
        return f"cache {line.cache} was destroyed with {objects or 'some'} objects in it"
    if isinstance(line, kmsg.CacheNotEmpty):
        return f"kmem_cache_destroy {line.cache}: Slab cache still has objects"
    if isinstance(line, kmsg.LeftAtUnload):
        place = f"{PurePath(line.file).name}:{line.source_line} ({line.function})"
        return f"{line.size_bytes} B of {place} were left when {line.module} was unloaded"
    if isinstance(line, kmsg.ModuleStillAlive):
        return (
            f"the kernel keeps the memory of {line.module}'s own code and data, because of what "
            "it left: part of the unexplained growth, and no leak of the module"
        )
    return line.log.text


def _repeated(count: int) -> str:
    return "" if count == 1 else f" ({count} times)"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
