"""From rows of the maps to sites, as both the end of a capture and the live view do it."""

from __future__ import annotations

import pytest

from kleak.capture.site_index import KnownStacks, SiteIndex
from kleak.frames.stacks import Frames
from kleak.model.session import Frame
from tests.support.made_names import MadeNames

SITE = 0xFFFFFFFF81000100
STACKS = {1: (0x10, 0x20), 2: (0x11, 0x20), 3: (0x12, 0x20), 4: (0x30, 0x20)}


class Site:
    def __init__(self, allocator: str, frames: Frames, call_site: Frame | None) -> None:
        self.allocator, self.frames, self.call_site = allocator, frames, call_site


def name(address: int, epoch: int) -> Frame:
    """0x10 and 0x11 are one place, 0x12 is that in the second cycle."""
    if epoch == 2 and address == 0x12:
        address = 0x11
    return Frame(None, "alloc" if address in (0x10, 0x11) else f"f{address:x}", 4)


def index(call_sites: dict[int, int] | None = None) -> SiteIndex[Site]:
    return SiteIndex(KnownStacks(STACKS, call_sites), MadeNames(name), Site)


def test_stacks_that_look_alike_are_one_site() -> None:
    sites = index()
    one = sites.add(1, 1, "kmalloc")
    assert sites.add(2, 1, "kmalloc") is one
    assert sites.add(3, 2, "kmalloc") is one
    assert sites.add(3, 1, "kmalloc") is not one
    assert sites.add(1, 1, "pages") is not one
    assert len(list(sites)) == 3
    assert one.call_site is None
    assert [frame.symbol for frame in one.frames] == ["alloc", "f20"]


def test_only_what_was_added_is_found() -> None:
    sites = index()
    added = sites.add(1, 1, "kmalloc")
    assert sites.find(1, 1, "kmalloc") is added
    assert sites.find(1, 2, "kmalloc") is None
    assert sites.find(2, 1, "kmalloc") is None


@pytest.mark.parametrize("stack", [SITE, 1])
def test_one_call_site_is_one_site(stack: int) -> None:
    sites = index({1: SITE, 2: SITE, 4: 0x20})
    site = sites.add(stack, 1, "kmalloc")
    assert {sites.add(key, 1, "kmalloc") for key in (SITE, 1, 2)} == {site}
    assert site.call_site == site.frames[0]
    assert sites.add(4, 1, "kmalloc") is not site
    assert sites.walked(SITE, 1) is None
    assert sites.walked(2, 1) == (name(0x11, 1), name(0x20, 1))
    assert sites.walked(3, 1) is None


def test_areas_have_their_name_from_the_stack() -> None:
    names = MadeNames(lambda address, epoch: Frame(None, "vmalloc" if address == 0x10 else "f", 4))
    sites = SiteIndex(KnownStacks(STACKS, None), names, Site)
    assert sites.add(1, 1, "vmap_area").allocator == "vmalloc"


def test_what_is_forgotten_is_another_site_when_it_comes_again() -> None:
    sites = index()
    stays, goes = sites.add(1, 1, "kmalloc"), sites.add(4, 1, "kmalloc")
    sites.forget_all_but([(2, 1, "kmalloc"), (1, 1, "kmalloc")])
    assert len(sites) == 1
    assert list(sites) == [stays]
    assert sites.add(2, 1, "kmalloc") is stays
    assert sites.add(4, 1, "kmalloc") is not goes
