"""The rule of scope: which frames belong to the target, and what that says of a stack."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from kleak.frames.names import base_name, is_interrupt
from kleak.frames.stacks import Frames
from kleak.model.session import Frame, Target


def in_scope(frame: Frame, target: Target) -> bool:
    """Whether a frame belongs to the target.

    A target of kind "module" is its name (``-`` and ``_`` are the same to the kernel), or several
    with commas between; one of kind "symbols" is one or more globs, separated by commas or
    blanks, over the kernel's text; what stands in brackets is a module that was loaded already.
    """
    if frame.module is not None:
        return _is_module_of(frame.module, target.kind, target.name)
    return (
        target.kind != "module"
        and frame.symbol is not None
        and _is_symbol_of(frame.symbol, target.name)
    )


@lru_cache(maxsize=1 << 16)
def _is_symbol_of(symbol: str, globs: str) -> bool:
    return any(
        fnmatchcase(symbol, glob) or fnmatchcase(base_name(symbol), glob)
        for glob in _split(globs)
        if not _is_bracketed(glob)
    )


@lru_cache(maxsize=1 << 10)
def _is_module_of(module: str, kind: str, target: str) -> bool:
    names = _split(target)
    if kind != "module":
        names = [name[1:-1] for name in names if _is_bracketed(name)]
    return any(_same_module(module, name) for name in names)


def _split(names: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", names) if name]


def _is_bracketed(name: str) -> bool:
    return name.startswith("[") and name.endswith("]")


def _same_module(one: str, other: str) -> bool:
    return one.replace("-", "_") == other.replace("-", "_")


def only_interrupted(frames: Sequence[Frame], target: Target) -> bool:
    """Whether all frames of the target lie beyond an interrupt, which then did the allocating.

    False for a stack without any frame of the target: nothing can be said of it.
    """
    interrupted = False
    for frame in frames:
        if in_scope(frame, target):
            return interrupted
        interrupted = interrupted or is_interrupt(frame)
    return False


def before_dispatch(frames: Frames, target: Target) -> Frames:
    """A stack that before_interrupt() gave, without how the kernel came to call the target, where
    an interrupt made it.

    A timer of one CPU may expire on another one, by other functions (timer migration: commit
    7ee988770326 ("timers: Implement the hierarchical pull model"), v6.9), and an interrupt's
    handler may run in a thread. Stacks without an interrupt stay as they are: who called is news.
    """
    if frames and is_interrupt(frames[-1]):
        for position in reversed(range(len(frames))):
            if in_scope(frames[position], target):
                return frames[: position + 1]
    return frames
