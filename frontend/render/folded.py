"""Folded stacks: ``outermost;...;innermost BYTES``, for flamegraph.pl, inferno and speedscope."""

from __future__ import annotations

from collections import defaultdict

from kleak.render.renderer import Look, Material, Renderer
from kleak.render.stack_text import function, whole_stack


def render(material: Material, look: Look) -> str:
    """One line a stack with its outstanding bytes, sorted; stacks that look the same are one."""
    folded: defaultdict[str, int] = defaultdict(int)
    for site in material.report.sites:
        names = [_name(function(frame)) for frame in reversed(whole_stack(site))]
        folded[";".join(names)] += site.outstanding.size_bytes
    return "".join(f"{stack} {size}\n" for stack, size in sorted(folded.items()))


def _name(text: str) -> str:
    """A name as flamegraph.pl takes it: a semicolon would end it, and so would a #."""
    return text.replace(";", ":").replace("#", "_")


RENDERER = Renderer(
    "folded", (".folded", ".collapsed"), "stacks with their bytes, for flame graphs", render
)
