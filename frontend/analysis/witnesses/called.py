"""Whose an object is that a function of the kernel made: its caller's, or the kernel's own.

What the kernel says of the functions (the witness "origins") decides, and names where it says
nothing. An object is the caller's where the function hands it out: it returns a pointer, or fills
in what it was given a pointer to, and there is another function that takes it back. Then
all functions in between have to pass it on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kleak.analysis.session_reports import once_per_session, texts
from kleak.frames.names import base_name
from kleak.model.session import Frame, Session

NAME = "origins"

# A kernel function with such a word in its name makes an object that its caller gives back.
_MAKING = frozenset({"alloc", "zalloc", "create", "new", "dup", "clone", "copy"})
_SETTING_UP = frozenset({"init", "setup"})
_COPYING = re.compile(r"\w*(?:dup|clone)")
# One that makes a device and registers it hands out the device.
_DEVICE = re.compile(r"_*(?:root|platform)_device_register\w*")
# A name belongs to the object it is given to, however that is registered then.
_NAMING = re.compile(r"\w*_set_name(?:_vargs)?|kvasprintf_const|kstrdup_const")
_ADDING = re.compile(
    r"kobject_(?:add|init_and_add)\w*|kset_(?:register|create\w*)|device_(?:add|register)"
)
NAMED_DEPTH = 2
"""So far from the target a name alone says that a function makes an object."""
HANDED_DEPTH = 6
"""So far an object is handed on."""


@dataclass(frozen=True, slots=True)
class _Function:
    """What BTF says of a function; ``undo`` takes back what it makes."""

    returns: str | None
    takes: tuple[str, ...]
    undo: str | None


@once_per_session
def _functions(session: Session) -> Mapping[str, _Function]:
    found = {}
    for text in texts(session, NAME)[-1:]:
        for line in text.splitlines():
            name, returns, takes, undo = line.split("\t")
            found[name] = _Function(
                None if returns == "-" else returns,
                () if takes == "-" else tuple(takes.split(",")),
                None if undo == "-" else undo,
            )
    return found


def names_an_object(between: Sequence[Frame]) -> bool:
    """Whether what was allocated is the name of an object that the target itself names or adds.

    A subsystem that stands in between names objects of its own: a disk's queues, for example.
    """
    naming = _NAMING.fullmatch(name_of(between[0])) is not None
    return naming and all(
        _NAMING.fullmatch(name) or _ADDING.fullmatch(name) for name in map(name_of, between)
    )


def hands_out(between: Sequence[Frame], session: Session) -> str | None:
    """What takes the object back that the outermost of ``between`` made for its caller: the name
    of a function, or "" where only the name of the maker tells; None where it is the kernel's own.

    ``between`` are the kernel's functions in front of the target's frame, the innermost first.
    """
    name = name_of(between[-1])
    functions = _functions(session)
    maker = functions.get(name)
    if maker is not None and len(between) <= HANDED_DEPTH:
        handed = maker.undo is not None or (maker.returns is not None and _is_making(name))
        made = _made_by(maker)
        if handed and all(_passes_on(one, made, functions) for one in between[:-1]):
            return maker.undo or ""
    if len(between) <= NAMED_DEPTH and (_is_making(name) or _DEVICE.fullmatch(name)):
        return ""
    return None


def sets_up(between: Sequence[Frame], session: Session) -> bool:
    """Whether the outermost of ``between`` sets up an object of its caller, and another function
    takes back what that took."""
    name = name_of(between[-1])
    function = _functions(session).get(name)
    undone = function is not None and function.returns is None and function.undo is not None
    return undone and not _SETTING_UP.isdisjoint(name.split("_"))


def name_of(frame: Frame) -> str:
    """The function of a frame, or its address."""
    return f"{frame.offset:#x}" if frame.symbol is None else base_name(frame.symbol)


def _is_making(name: str) -> bool:
    words = name.split("_")
    return not _MAKING.isdisjoint(words) or _COPYING.fullmatch(name) is not None


def _made_by(maker: _Function) -> frozenset[str]:
    """The types of what it may hand out: what it returns, else what it stores or fills in."""
    if maker.returns is not None:
        return frozenset({maker.returns})
    stored = {one[1:] for one in maker.takes if one.startswith("*")}
    return frozenset(stored | set(maker.takes[:1]))


def _passes_on(frame: Frame, made: frozenset[str], functions: Mapping[str, _Function]) -> bool:
    """Whether a function on the way returns an object, or is given the one that is made. One that
    BTF does not know was split off by the compiler from one that it knows."""
    function = functions.get(name_of(frame))
    if function is None or function.returns is not None:
        return True
    return any(one.lstrip("*") in made for one in function.takes)
