"""Which outstanding objects hold the addresses of others, read from /proc/kcore.

Only the addresses are kept, never other contents. What is read is bounded: the oldest objects of
each site, their first page, and a sum over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kleak.capture.machine.kernel_memory import KCORE, KernelMemory, kernel_memory, words
from kleak.model.session import TracedSite
from kleak.model.witnesses import USED, WitnessState, refused

OBJECTS_OF_A_SITE = 128
BYTES_OF_AN_OBJECT = 4096
OBJECTS_IN_ALL = 16384
BYTES_IN_ALL = 16 << 20
POINTERS_IN_ALL = 100_000

# Of these the address is that of memory that may be read: not of device registers (ioremap), and
# not of areas that map pages of others.
_READABLE = frozenset({"kmalloc", "kmem_cache", "reclaimable_cache", "pages", "vmalloc"})
_WORD_BYTES = 8


@dataclass(frozen=True, slots=True)
class PointersRead:
    """What was found. ``state`` may say why nothing could be read: then ``text`` is None.

    ``text`` has a line for each pointer: the address of the object that holds it, the offset in
    that object, and the address of the object that it points to.
    """

    state: WitnessState
    text: str | None = None


def read_pointers(sites: Sequence[TracedSite], path: Path = KCORE) -> PointersRead:
    """Look through the kept objects of ``sites`` for the addresses of kept objects of other sites.

    Only the start of an object counts as its address.
    """
    try:
        with kernel_memory(path) as memory:
            return PointersRead(USED, _search(memory, sites))
    except OSError as error:
        return PointersRead(refused(f"{path}: {error.strerror}"))


def _search(memory: KernelMemory, sites: Sequence[TracedSite]) -> str:
    owners = {kept.address: number for number, site in enumerate(sites) for kept in site.kept}
    lines: list[str] = []
    objects = size_bytes = 0
    for number, site in enumerate(sites):
        if site.allocator not in _READABLE:
            continue
        for kept in site.kept[:OBJECTS_OF_A_SITE]:
            wanted = min(kept.size_bytes, BYTES_OF_AN_OBJECT) // _WORD_BYTES * _WORD_BYTES
            objects += 1
            size_bytes += wanted
            if objects > OBJECTS_IN_ALL or size_bytes > BYTES_IN_ALL:
                return "".join(lines)
            for position, word in enumerate(words(memory.read(kept.address, wanted))):
                if word and owners.get(word, number) != number:
                    offset = position * _WORD_BYTES
                    lines.append(f"{kept.address:#x} {offset} {word:#x}\n")
            if len(lines) > POINTERS_IN_ALL:
                return "".join(lines)
    return "".join(lines)
