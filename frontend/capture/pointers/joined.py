"""What the search for pointers found, by site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Generic, TypeVar

from kleak.capture.engine.records import LedgerEntry
from kleak.capture.pointers.question import Said
from kleak.frames.stacks import Frames, split_allocator
from kleak.model.session import PointersTo

HOLDERS_OF_A_SITE = 8

_Site = TypeVar("_Site")


class JoinedPointers(Generic[_Site]):
    """Collects what was said of the objects of each site. Made for one read of the ledger."""

    def __init__(self, said: Mapping[int, Said]) -> None:
        """``said`` is by the address in the ledger."""
        self._said = said
        self._site_of: dict[int, _Site] = {}
        self._of_site: dict[int, list[Said]] = {}

    def note(self, entry: LedgerEntry, site: _Site) -> None:
        """Take an outstanding object of a site, if it was searched for."""
        said = self._said.get(entry.address)
        if said is not None and said.time_ns == entry.time_ns:
            self._site_of[entry.address] = site
            self._of_site.setdefault(id(site), []).append(said)

    def of(self, site: _Site, frames_of: Mapping[int, tuple[str, Frames]]) -> PointersTo | None:
        """Return what was found of a site; None where none of its objects was searched for.

        ``frames_of``: allocator and stack of each site, by its id().
        """
        all_said = self._of_site.get(id(site))
        if not all_said:
            return None
        holders: Counter[str] = Counter()
        for said in all_said:
            if said.referenced:
                holders[self._name(said, frames_of)] += 1
        return PointersTo(
            len(all_said),
            sum(said.referenced is False for said in all_said),
            sum(said.referenced is True for said in all_said),
            tuple(holders.most_common(HOLDERS_OF_A_SITE)),
        )

    def _name(self, said: Said, frames_of: Mapping[int, tuple[str, Frames]]) -> str:
        if said.holder_object is None:
            return said.holder
        site = self._site_of.get(said.holder_object)
        if site is None:
            return "another outstanding object"
        allocator, frames = frames_of[id(site)]
        first = next(iter(split_allocator(frames)[1]), None)
        where = "" if first is None or first.symbol is None else f" of {first.symbol}"
        return f"{allocator}{where}, outstanding too"
