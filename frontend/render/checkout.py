"""The repository that a command runs in, for paths that a reader of its report can open."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def locator(
    directories: Sequence[Path], environment: Mapping[str, str] = os.environ
) -> Callable[[str], str]:
    """Return what turns the name of a source file into its path in the repository.

    The repository is GITHUB_WORKSPACE, else the directory above the current one that has a .git,
    else the current one. A relative name is looked for in the current directory and in
    ``directories`` (debug information names the files of a module from the module's directory).
    What is not found in the repository keeps its name.
    """
    root = _root(environment).resolve()

    def locate(name: str) -> str:
        for directory in (Path.cwd(), *directories):
            path = (directory / name).resolve()
            if path.is_relative_to(root) and path.is_file():
                return path.relative_to(root).as_posix()
        return name

    return locate


def _root(environment: Mapping[str, str]) -> Path:
    workspace = environment.get("GITHUB_WORKSPACE")
    if workspace:
        return Path(workspace)
    here = Path.cwd()
    return next((place for place in (here, *here.parents) if (place / ".git").exists()), here)
