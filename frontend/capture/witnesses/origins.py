"""What the kernel says of the functions between an allocator and the target, for analysis.

By BTF: what a function returns and takes a pointer to, and which function takes back what it
makes: one of the same name but for the verb, that takes a pointer to the same type. A module is
long gone when this is asked; the functions it called are the kernel's and stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kleak.frames.names import base_name
from kleak.frames.scope import in_scope
from kleak.frames.stacks import split_allocator
from kleak.model.session import Frame, Target, TracedSite
from kleak.model.witnesses import USED, WitnessState, absent
from kleak.parsers.btf import AmbiguousTypeError, Btf, Prototype
from kleak.parsers.errors import ParseError

BTF = Path("/sys/kernel/btf/vmlinux")
MOST_FUNCTIONS = 1000
"""So many functions are looked up at most: a look-up takes a millisecond."""

# The verbs that undo one, whatever the rest of the name is.
_UNDONE_BY = {
    "alloc": ("free", "put", "destroy", "release", "dealloc", "del"),
    "allocate": ("free", "release", "destroy"),
    "zalloc": ("free",),
    "create": ("destroy", "free", "release", "put", "delete", "del"),
    "init": ("exit", "destroy", "fini", "uninit", "deinit", "cleanup", "free", "release", "done"),
    "new": ("free", "put", "destroy", "del", "delete", "release"),
    "setup": ("cleanup", "teardown", "destroy", "free", "release"),
    "clone": ("free", "destroy", "release"),
    "dup": ("free", "destroy", "release"),
    "copy": ("free", "destroy", "release"),
    "get": ("put", "release"),
    "open": ("close", "release"),
    "prepare": ("unprepare", "finish", "cleanup", "release"),
}


@dataclass(frozen=True, slots=True)
class OriginsRead:
    """What was found, a line a function: its name, what it returns a pointer to, what it takes
    pointers to (with commas), and what undoes it, with tabs between; "-" is nothing of the kind.
    ``text`` is None where the kernel has no BTF.
    """

    state: WitnessState
    text: str | None = None


def read_origins(sites: Iterable[TracedSite], target: Target, path: Path = BTF) -> OriginsRead:
    """Look up the kernel's functions by which the outstanding memory of ``sites`` was asked for."""
    names = list(dict.fromkeys(_helpers(sites, target)))[:MOST_FUNCTIONS]
    try:
        btf = Btf(path.read_bytes())
    except OSError as error:
        return OriginsRead(absent(f"{path}: {error.strerror}"))
    except ParseError as error:
        return OriginsRead(absent(f"{path}: {error}"))
    lines = []
    for name in names:
        found = _prototype(btf, name)
        if found is not None:
            undo = _undone_by(btf, name, found)
            takes = ",".join(found.takes) or "-"
            lines.append(f"{name}\t{found.points_to or '-'}\t{takes}\t{undo or '-'}\n")
    return OriginsRead(USED, "".join(lines))


def _helpers(sites: Iterable[TracedSite], target: Target) -> Iterator[str]:
    """The kernel's functions in front of the target's innermost frame, allocators aside."""
    for site in sites:
        if site.outstanding.count:
            yield from _between(split_allocator(site.frames)[1], target)


def _between(frames: Iterable[Frame], target: Target) -> Iterator[str]:
    for frame in frames:
        if in_scope(frame, target):
            return
        if frame.module is None and frame.symbol is not None:
            yield base_name(frame.symbol)


def _prototype(btf: Btf, name: str) -> Prototype | None:
    """Of the function; with allocation profiling the one that does the work has another name
    (commit 7bd230a26648, v6.10).
    """
    for one in (name, f"{name}_noprof"):
        if not btf.has_name(one):
            continue
        try:
            found = btf.prototype(one)
        except AmbiguousTypeError:
            found = None  # several static functions of one name
        if found is not None:
            return found
    return None


def _undone_by(btf: Btf, name: str, made: Prototype) -> str | None:
    """The function that takes back what ``name`` makes: what it returns, else what it was given."""
    handed = {one[1:] for one in made.takes if one.startswith("*")}
    kinds = ({made.points_to} if made.points_to else handed | set(made.takes[:1])) - {"void", ""}
    words = name.strip("_").split("_")
    for position, word in enumerate(words):
        for verb in _UNDONE_BY.get(word, ()):
            before, behind = words[:position], words[position + 1 :]
            for one in ([*before, verb, *behind], [*before, verb], [*before, *behind, verb]):
                for lead in ("", "__"):
                    candidate = lead + "_".join(one)
                    found = _prototype(btf, candidate)
                    if found is not None and not kinds.isdisjoint(found.takes):
                        return candidate
    return None
