"""Slabs: which object an address lies in, and whether that object is free (SLUB, mm/slub.c)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kleak.capture.engine.hooks import offset
from kleak.capture.pointers.layout import MemoryLayout
from kleak.capture.pointers.programs import ScanPrograms
from kleak.parsers.btf import Btf

_WORD = (1 << 64) - 1
_MOST_OBJECTS = 1 << 15  # that a slab can have: 15 bits count them
_MOST_SHEAVES = 4096
_POSSIBLE_NODES = Path("/sys/devices/system/node/possible")


@dataclass(frozen=True, slots=True)
class Cache:
    """A kmem_cache. ``free_pointer`` is where a free object has the pointer to the next one."""

    address: int
    name: str
    stride: int
    object_bytes: int
    free_pointer: int
    random: int
    padding: int


@dataclass(frozen=True, slots=True)
class SlabObject:
    """What an address in a slab lies in: ``free`` is None where that cannot be told."""

    cache: Cache
    address: int
    inside: int
    free: bool | None

    @property
    def in_padding(self) -> bool:
        """Whether the address lies behind the object, where no owner writes."""
        return not 0 <= self.inside < self.cache.object_bytes


class Slabs:
    """Answers of one look at the slabs: what was read once is not read again."""

    def __init__(
        self,
        programs: ScanPrograms,
        btf: Btf,
        layout: MemoryLayout,
        per_cpu: Mapping[int, int],
    ) -> None:
        """``per_cpu``: what to add to a per-CPU pointer, by the number of the CPU.

        Raises UnsupportedError where the kernel's slabs are no SLUB's.
        """
        self._programs, self._layout, self._per_cpu = programs, layout, per_cpu
        slab = "slab" if btf.struct_size("slab") else "page"
        self._slab_cache = offset(btf, slab, "slab_cache")
        self._freelist = offset(btf, slab, "freelist")
        self._compound_head = offset(btf, "page", "compound_head")
        self._extensions = next(
            (
                at
                for struct, member in (
                    (slab, "obj_exts"),
                    (slab, "memcg_data"),
                    ("page", "memcg_data"),
                    ("page", "obj_cgroups"),  # before v5.11
                )
                if (at := btf.member_offset(struct, member)) is not None
            ),
            None,
        )
        self._cache = {
            name: offset(btf, "kmem_cache", name)
            for name in ("size", "object_size", "offset", "name")
        }
        self._random = btf.member_offset("kmem_cache", "random")
        self._padding = btf.member_offset("kmem_cache", "red_left_pad")
        self._cpu_slab = btf.member_offset("kmem_cache", "cpu_slab")
        cpu_slab = "kmem_cache_cpu"
        self._cpu_freelist = btf.member_offset(cpu_slab, "freelist")
        self._cpu_page = btf.member_offset(cpu_slab, "slab")
        if self._cpu_page is None:  # before commit bb192ed9aa71 ("mm/slub: ... struct slab"), v5.17
            self._cpu_page = btf.member_offset(cpu_slab, "page")
        self._sheaves = _Sheaves(programs, btf, per_cpu)
        self._caches: dict[int, Cache | None] = {}
        self._free: dict[int, tuple[set[int], bool]] = {}

    def extensions_offset(self) -> int | None:
        """Return where the struct page of a slab has the array of what its objects belong to."""
        return self._extensions

    def object_at(self, address: int, frame: int) -> SlabObject | None:
        """Return what an address in a slab's frame lies in; None where that is no slab any more."""
        head = self._programs.word(self._layout.struct_page(frame) + self._compound_head)
        page = head - 1 if head & 1 else self._layout.struct_page(frame)
        described = self._layout.described_by(page)
        cache = self._cache_at(self._programs.word(page + self._slab_cache))
        if cache is None or described is None:
            return None
        start = self._layout.address_of(described[0])
        number = (address - start - cache.padding) // cache.stride
        where = start + cache.padding + number * cache.stride
        if number < 0:
            return SlabObject(cache, start, -1, free=True)
        return SlabObject(cache, where, address - where, self._is_free(cache, page, start, where))

    def _is_free(self, cache: Cache, page: int, start: int, where: int) -> bool | None:
        if page not in self._free:
            self._free[page] = self._free_objects(cache, page, start)
        free, whole = self._free[page]
        if where in free or where in self._sheaves.free_objects(cache.address):
            return True
        # An object that was given out may look free as well: only where no list says more.
        return False if whole or not self._looks_free(cache, start, where) else None

    def _free_objects(self, cache: Cache, page: int, start: int) -> tuple[set[int], bool]:
        """The free objects of a slab, and whether all lists were read to their end."""
        read = self._programs
        free, whole = self._chain(cache, read.word(page + self._freelist), start)
        if self._cpu_slab is None or self._cpu_freelist is None or self._cpu_page is None:
            return free, whole
        of_cache = read.word(cache.address + self._cpu_slab)
        for shift in self._per_cpu.values():
            on_cpu = of_cache + shift & _WORD
            if of_cache and read.word(on_cpu + self._cpu_page) == page:
                first = read.word(on_cpu + self._cpu_freelist)
                more, ended = self._chain(cache, first, start)
                free, whole = free | more, whole and ended
        return free, whole

    def _chain(self, cache: Cache, first: int, start: int) -> tuple[set[int], bool]:
        """Follow a list of free objects as far as it is one: it may change meanwhile."""
        found: set[int] = set()
        at = first
        while at and len(found) < _MOST_OBJECTS:
            if at in found or at < start or (at - start - cache.padding) % cache.stride:
                return found, False
            found.add(at)
            at = self._next_free(cache, at)
        return found, at == 0

    def _next_free(self, cache: Cache, where: int) -> int:
        at = where + cache.free_pointer
        word = self._programs.word(at)
        return word if self._random is None else word ^ cache.random ^ _swapped(at)

    def _looks_free(self, cache: Cache, start: int, where: int) -> bool:
        """Whether there is a pointer to a free object of the slab where a free object has one.

        An object that was given out keeps it until it is written over.
        """
        if cache.free_pointer >= cache.object_bytes:
            return False  # behind the object, where it stays when the object is given out
        after = self._next_free(cache, where)
        # Of a hardened list, 0 too says that it is one: the word is no simple pattern.
        if after == 0:
            return self._random is not None
        near = start <= after < start + _MOST_OBJECTS * cache.stride
        return near and (after - start - cache.padding) % cache.stride == 0

    def _cache_at(self, address: int) -> Cache | None:
        if address not in self._caches:
            self._caches[address] = self._read_cache(address)
        return self._caches[address]

    def _read_cache(self, address: int) -> Cache | None:
        if self._layout.frame_at(address) is None and address < self._layout.direct:
            return None
        read, at = self._programs, self._cache
        stride = read.half(address + at["size"])
        object_bytes = read.half(address + at["object_size"])
        if not 0 < object_bytes <= stride:
            return None
        return Cache(
            address,
            read.text(read.word(address + at["name"])),
            stride,
            object_bytes,
            read.half(address + at["offset"]),
            0 if self._random is None else read.word(address + self._random),
            0 if self._padding is None else read.half(address + self._padding),
        )


class _Sheaves:
    """Free objects in arrays, of CPUs and nodes.

    Since commit 2d517aa09bbc ("slab: add opt-in caching layer of percpu sheaves"), v6.18.
    """

    def __init__(self, programs: ScanPrograms, btf: Btf, per_cpu: Mapping[int, int]) -> None:
        self._programs, self._per_cpu = programs, per_cpu
        self._of_cache = btf.member_offset("kmem_cache", "cpu_sheaves")
        self._on_cpu = [
            at
            for member in ("main", "spare", "rcu_free")
            if (at := btf.member_offset("slub_percpu_sheaves", member)) is not None
        ]
        self._size = btf.member_offset("slab_sheaf", "size")
        self._objects = btf.member_offset("slab_sheaf", "objects")
        self._in_barn = btf.member_offset("slab_sheaf", "barn_list")
        self._nodes = btf.member("kmem_cache", "node")
        self._barn = btf.member_offset("kmem_cache_node", "barn")
        self._full = btf.member_offset("node_barn", "sheaves_full")
        self._free: dict[int, set[int]] = {}

    def free_objects(self, cache: int) -> set[int]:
        """Return the addresses of the objects of a cache that lie in its sheaves."""
        if self._of_cache is None or self._size is None or self._objects is None:
            return set()
        if cache not in self._free:
            found: set[int] = set()
            for sheaf in self._sheaves(cache):
                count = self._programs.half(sheaf + self._size)
                if 0 < count <= _MOST_OBJECTS:
                    found.update(self._programs.words(sheaf + self._objects, count) or ())
            self._free[cache] = found
        return self._free[cache]

    def _sheaves(self, cache: int) -> Iterable[int]:
        read = self._programs
        of_cache = read.word(cache + (self._of_cache or 0))
        if not of_cache:
            return
        for shift in self._per_cpu.values():
            for at in self._on_cpu:
                if sheaf := read.word((of_cache + shift & _WORD) + at):
                    yield sheaf
        if self._nodes is None or self._barn is None or self._full is None or self._in_barn is None:
            return
        for number in range(_nodes()):
            node = read.word(cache + self._nodes.offset + 8 * number)
            barn = read.word(node + self._barn) if node else 0
            head = barn + self._full
            at = read.word(head) if barn else 0
            for _ in range(_MOST_SHEAVES):
                if at in (0, head):
                    break
                yield at - self._in_barn
                at = read.word(at)


def _nodes() -> int:
    """How many nodes of memory there may be: of more, a kmem_cache has no pointer."""
    try:
        last = _POSSIBLE_NODES.read_text().strip().split(",")[-1]
    except OSError:  # CONFIG_NUMA is off
        return 1
    return int(last.split("-")[-1]) + 1


def _swapped(word: int) -> int:
    return int.from_bytes(word.to_bytes(8, "little"), "big")
