"""The stacks of a report as one tree, outermost function first, for the flame graph."""

from __future__ import annotations

from typing import Any

from kleak.model.report import JudgedSite
from kleak.model.session import Frame
from kleak.render.escape import printable
from kleak.render.stack_text import function


class Flames:
    """A tree that grows by sites. Node 0 is the root; a node's parent has a smaller number."""

    def __init__(self) -> None:
        """Begin with the root alone."""
        self._frames: dict[Frame, int] = {}
        self._shown: dict[tuple[str, str, bool], int] = {}
        self._children: dict[tuple[int, int], int] = {}
        self._frame: list[int] = [0]
        self._parent: list[int] = [0]
        self._bytes: list[int] = [0]
        self._objects: list[int] = [0]

    def add(self, site: JudgedSite) -> tuple[int, int]:
        """Add a site's stack; return its innermost node, and that of its first frame."""
        held = site.outstanding
        node = self._grow(0, held.count, held.size_bytes, None)
        for frame in reversed(site.frames):
            node = self._grow(node, held.count, held.size_bytes, frame)
        first = node
        for frame in reversed(site.allocator_frames):
            node = self._grow(node, held.count, held.size_bytes, frame)
        return node, first

    def _grow(self, parent: int, count: int, size_bytes: int, frame: Frame | None) -> int:
        node = 0 if frame is None else self._child(parent, self._number(frame))
        self._bytes[node] += size_bytes
        self._objects[node] += count
        return node

    def _child(self, parent: int, frame: int) -> int:
        key = (parent, frame)
        node = self._children.get(key)
        if node is None:
            node = self._children[key] = len(self._frame)
            self._frame.append(frame)
            self._parent.append(parent)
            self._bytes.append(0)
            self._objects.append(0)
        return node

    def _number(self, frame: Frame) -> int:
        number = self._frames.get(frame)
        if number is None:
            source = frame.source
            place = "" if source is None else printable(f"{source.file}:{source.line}")
            shown = (function(frame), place, frame.module is not None)
            number = self._frames[frame] = self._shown.setdefault(shown, len(self._shown))
        return number

    def data(self) -> dict[str, Any]:
        """The tree as page.js takes it: frames as [name, place, of a module], nodes by column."""
        return {
            "frames": [[name, place, int(module)] for name, place, module in self._shown],
            "nodes": {
                "frame": self._frame,
                "parent": self._parent,
                "bytes": self._bytes,
                "objects": self._objects,
            },
        }
