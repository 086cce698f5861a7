"""Witness: the kernel's own list of vmalloc regions, joined by exact address."""

from __future__ import annotations

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Allocation, Session, TracedSite, VmallocRegion

NAME = "vmallocinfo"

# What a row is called, by allocator: dma_common_contiguous_remap() and get_vm_area() make areas
# as vmap() does, with other flags.
LISTED_AS = {
    "vmalloc": frozenset({"vmalloc"}),
    "execmem": frozenset({"vmalloc"}),
    "vmap": frozenset({"vmap", "dma-coherent", "sparse", "unflagged"}),
    "ioremap": frozenset({"ioremap"}),
    "vm_map_ram": frozenset({"vm_map_ram"}),
}
# The row's size has a guard page, that of what is kept has not (in old files it may). No page is
# larger than this.
LARGEST_GUARD_BYTES = 64 << 10


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge whether the kept regions are still mapped.

    None for memory that is no such region, where /proc/vmallocinfo could not be read with real
    addresses, and where the session kept no address of this site.
    """
    if site.allocator not in LISTED_AS or session.vmalloc_regions is None or not site.kept:
        return None
    regions = {region.address: region for region in session.vmalloc_regions}
    checked = len(site.kept)
    there = sum(_is_there(kept, site.allocator, regions) for kept in site.kept)
    kind = "VM_ALLOC" if site.allocator == "vmalloc" else site.allocator
    if there == checked:
        which = "still lists it" if checked == 1 else f"still lists all {checked} that were checked"
        return Finding(NAME, Fact.REGION_THERE, f"/proc/vmallocinfo {which}, as {kind}")
    if there == 0:
        which = "does not list it" if checked == 1 else f"lists none of {checked}"
        return Finding(
            NAME, Fact.REGION_GONE, f"/proc/vmallocinfo {which}: freed, and the tracer missed it"
        )
    return Finding(
        NAME,
        Fact.REGION_PARTLY,
        f"/proc/vmallocinfo lists {there} of {checked}: the tracer missed the other frees",
    )


def missed_frees(site: TracedSite, session: Session) -> int:
    """How many of the kept regions are gone, so that their frees must have been missed."""
    if site.allocator not in LISTED_AS or session.vmalloc_regions is None:
        return 0
    regions = {region.address: region for region in session.vmalloc_regions}
    return sum(not _is_there(kept, site.allocator, regions) for kept in site.kept)


def _is_there(kept: Allocation, allocator: str, regions: dict[int, VmallocRegion]) -> bool:
    """Whether the region is listed. Another kind or size at its address is another's region."""
    region = regions.get(kept.address)
    return (
        region is not None
        and region.kind in LISTED_AS[allocator]
        and 0 <= region.size_bytes - kept.size_bytes <= LARGEST_GUARD_BYTES
    )
