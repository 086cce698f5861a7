"""Who keeps a module from being unloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kleak.capture.engine.records import ReferenceCount
from kleak.errors import TargetError

_MODULES = Path("/sys/module")
_NAMED = 5


@dataclass(frozen=True, slots=True)
class References:
    """References to a module that cannot go: ``count`` in all, one each for ``holders``, which are
    modules that use it; and the ``processes`` of the exercise that still run, which may have more.
    """

    count: int
    holders: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Say it in words: "3 references: 1 of module a, 2 of nobody that can be named"."""
        held = [f"1 of module {name}" for name in self.holders]
        others = self.count - len(self.holders)
        if others > 0:
            held.append(f"{others} of no module")
        said = f"{self.count} {'reference' if self.count == 1 else 'references'}"
        if len(held) > 1 or self.holders:
            said += f" ({', '.join(held)})"
        if self.processes:
            more = [] if len(self.processes) <= _NAMED else ["..."]
            named = ", ".join([*self.processes[:_NAMED], *more])
            said += f"; of the exercise there still run: {named}"
        return said


def describe_callers(
    counts: Sequence[ReferenceCount], module: str, name_of: Callable[[int], str]
) -> str:
    """Say who took references to ``module`` and gave them back, so often; "" if nobody was seen.

    "; taken by sk_alloc+0x2f (4), given back by sk_free+0x61 (3)". ``name_of`` names an address.
    """
    said = ""
    for given_back, verb in ((False, "; taken by "), (True, ", given back by ")):
        own = [one for one in counts if one.module == module and one.given_back is given_back]
        own.sort(key=lambda one: -one.number)
        named = [f"{name_of(one.caller)} ({one.number})" for one in own[:_NAMED]]
        more = ["..."] if len(own) > _NAMED else []
        if named:
            said += verb + ", ".join([*named, *more])
        elif not given_back:
            return ""
        else:
            said += ", given back by nobody"
    return said


class PinnedError(TargetError):
    """A module does not unload, because something holds references to it."""

    def __init__(self, module: str, reason: str, references: References) -> None:
        """``reason`` is what the kernel said."""
        held = references.describe()
        super().__init__(f"module {module} does not unload: {reason}; held by {held}")
        self.module = module
        self.references = references


def read_references(module: str) -> References | None:
    """Return who holds a module; None where nobody does, or the kernel does not tell."""
    place = _MODULES / module
    try:
        count = int((place / "refcnt").read_text())
    except (OSError, ValueError):
        return None
    if count <= 0:
        return None
    try:
        holders = tuple(sorted(one.name for one in (place / "holders").iterdir()))
    except OSError:
        holders = ()
    return References(count, holders)
