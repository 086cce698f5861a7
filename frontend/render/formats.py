"""All formats, and which one a file's name asks for."""

from __future__ import annotations

from kleak.render import (
    comma_separated,
    folded,
    github,
    html_page,
    ktap,
    markdown,
    parquet,
    pprof,
    report_json,
    speedscope,
    table,
)
from kleak.render.renderer import Renderer

RENDERERS: tuple[Renderer, ...] = (
    table.RENDERER,
    report_json.RENDERER,
    comma_separated.RENDERER,
    folded.RENDERER,
    pprof.RENDERER,
    speedscope.RENDERER,
    markdown.RENDERER,
    ktap.RENDERER,
    github.RENDERER,
    html_page.RENDERER,
    parquet.RENDERER,
)
BY_NAME = {renderer.name: renderer for renderer in RENDERERS}


def for_file(name: str) -> Renderer | None:
    """The format of a file with this name: that with the longest fitting extension, if any."""
    fitting = [
        (len(extension), renderer)
        for renderer in RENDERERS
        for extension in renderer.extensions
        if name.lower().endswith(extension)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None
