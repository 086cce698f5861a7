"""Witness: kmemleak, the kernel's own search through memory for pointers to its objects."""

from __future__ import annotations

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Session, Tally, TracedSite

NAME = "kmemleak"

# What it always keeps a record of; slab caches may be excepted (SLAB_NOLEAKTRACE), pages are.
ALWAYS_TRACKED = frozenset({"kmalloc", "vmalloc"})
SLAB_BYTES = 8192  # KMALLOC_MAX_CACHE_SIZE: two pages


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge by what the last scans found. None where it was not asked, or has nothing to say."""
    del session
    said = site.reachability
    if said is None:
        return None
    outstanding = site.outstanding.count
    if said.unreferenced:
        which = _share(said.unreferenced, outstanding)
        says = f"kmemleak found no pointer to {which}: nothing can free it"
        return Finding(NAME, Fact.UNREFERENCED, says)
    if said.same_stack:
        return Finding(
            NAME,
            Fact.UNREFERENCED,
            f"kmemleak found no pointer to {said.same_stack} allocated here: nothing can free it",
        )
    if said.referenced and _is_large(site.outstanding):
        return Finding(
            NAME,
            Fact.REFERENCED_LARGE,
            "kmemleak found a pointer to it, or to somewhere in it: what was in its pages before "
            "may have left one",
        )
    if said.referenced:
        return Finding(
            NAME,
            Fact.REFERENCED,
            "kmemleak tracks it and found a pointer to it: something else still refers to it, or "
            "a stale value looks so",
        )
    if said.own:
        return Finding(
            NAME,
            Fact.OWN_REFERENCE,
            "kmemleak found a pointer to it; the data of the unloaded module, which this kernel "
            "kept with its allocation tags, leads to it",
        )
    if said.asked and not said.known and site.allocator in ALWAYS_TRACKED:
        return Finding(
            NAME,
            Fact.NOT_TRACKED,
            "kmemleak knows no such object: it was freed, and the tracer missed that",
        )
    return None


def _is_large(outstanding: Tally) -> bool:
    """Whether the objects have pages of their own, by what they are on the average."""
    return outstanding.size_bytes > SLAB_BYTES * outstanding.count


def _share(unreferenced: int, outstanding: int) -> str:
    if unreferenced < outstanding:
        return f"{unreferenced} of {outstanding}"
    return "it" if outstanding == 1 else f"any of the {outstanding}"
