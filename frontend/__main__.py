"""Run kleak as ``python3 -m kleak``; from a checkout, not installed, as ``python3 frontend``."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def use_checkout() -> None:
    """Make this directory the package kleak, with parsers and bpf from beside it, as the mapping of
    pyproject.toml does.
    """
    here = Path(__file__).resolve().parent
    places = [str(here), str(here.parent)]
    spec = spec_from_file_location("kleak", here / "__init__.py", submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    sys.modules["kleak"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    if not __package__:  # Python was given the directory, and put it first on its path:
        sys.path.pop(0)  # kleak.snapshots.collect is not to be had as "collect"
        use_checkout()
    from kleak.cli import main

    main()
