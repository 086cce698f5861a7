"""The arrows of the layout: what a room imports lies in layers below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import TOP

LAYERS = (
    {"errors", "gc_pause", "model", "parsers", "progress", "terminal", "units"},
    {"files", "frames", "wording"},
    {"store", "symbols"},
    {"analysis", "capture"},
    {"faults", "snapshots", "vm"},
    {"render"},
    {"watch"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
"""From the bottom up: folders and files of the package. None imports another of its own layer, so
there can be no circle among them."""
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
PACKAGE = ("__init__", "bpf", "py.typed")
"""What is no room: the version, and text."""


def imported(text: str) -> Iterator[tuple[str, int]]:
    """The rooms that a module's text imports anything of, wherever it does, with the line."""
    for node in ast.walk(ast.parse(text)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the package's modules name each other in full"
            if node.module == "kleak":
                modules = [f"kleak.{alias.name}" for alias in node.names]
            elif node.module is not None:
                modules = [node.module]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "kleak" and len(parts) > 1 and not parts[1].startswith("__"):
                yield parts[1], node.lineno


def files() -> Iterator[tuple[str, Path]]:
    """Each module of the package, with its room."""
    for path in sorted((TOP / "frontend").rglob("*.py")):
        parts = path.relative_to(TOP / "frontend").parts
        yield parts[0].removesuffix(".py"), path
    for path in sorted((TOP / "parsers").rglob("*.py")):
        yield "parsers", path


def arrows_that_are_wrong(room: str, text: str) -> list[str]:
    """What a module of ``room`` imports and may not."""
    return [
        f"line {line}: {room} imports {other}"
        for other, line in imported(text)
        if other != room and not HEIGHT[other] < HEIGHT[room]
    ]


def test_every_room_has_a_layer() -> None:
    rooms = {room for room, _ in files()} - set(PACKAGE)
    assert rooms <= set(HEIGHT)


def test_no_arrow_goes_up_or_sideways() -> None:
    wrong = [
        f"{path.relative_to(TOP)}, {arrow}"
        for room, path in files()
        if room not in PACKAGE
        for arrow in arrows_that_are_wrong(room, path.read_text())
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("model", "from kleak.errors import UsageError"),
        ("parsers", "import kleak.model.session"),
        ("frames", "from kleak import commands"),
        ("capture", "def late():\n    from kleak.analysis.judge import judge"),
        ("analysis", "from kleak.capture.scope import NamedScope"),
    ],
)
def test_a_wrong_arrow_is_seen(room: str, text: str) -> None:
    assert len(arrows_that_are_wrong(room, text)) == 1
