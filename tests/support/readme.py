"""The commands of README.md, by the kind that stands behind ``sh`` where a block begins."""

from __future__ import annotations

import re
import shlex

from tests.support.paths import TOP

README = TOP / "README.md"


def commands(kind: str) -> list[list[str]]:
    """Return the command lines of all blocks "```sh KIND", without sudo, as words."""
    blocks = re.findall(rf"^```sh {kind}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line]
    if not lines:
        raise AssertionError(f"README.md has no block of kind {kind}")
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] if line[0] == "sudo" else line for line in words]
