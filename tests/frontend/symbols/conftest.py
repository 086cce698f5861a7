"""Builds tests/modules/sections against every kernel headers tree that is there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SECTIONS = Path(__file__).parents[2] / "modules" / "sections"


def header_trees():
    """Trees a module can be built against: in $KLEAK_KERNELS, else where Debian puts them."""
    where = os.environ.get("KLEAK_KERNELS")
    roots = [Path(where)] if where else [Path("/usr/src"), Path("/lib/modules")]
    found = {}
    for root in roots:
        for marker in (
            *root.glob("*/include/config/auto.conf"),
            *root.glob("*/build/include/config/auto.conf"),
            *root.glob("*/usr/src/*/include/config/auto.conf"),
        ):
            tree = marker.parents[2].resolve()
            found[str(tree)] = tree
    return [found[name] for name in sorted(found)]


TREES = header_trees()


@pytest.fixture(
    scope="session",
    params=[(tree, flags) for tree in TREES for flags in ("", "-gdwarf-4")] or [None],
    ids=lambda build: "-".join(filter(None, (build[0].name, build[1]))) if build else "no-headers",
)
def module_path(request, tmp_path_factory):
    """A freshly built sections.ko, with the compiler's DWARF version and with version 4."""
    if request.param is None:
        pytest.skip("no kernel headers in /usr/src, /lib/modules or $KLEAK_KERNELS")
    tree, flags = request.param
    directory = tmp_path_factory.mktemp("sections") / "sections"
    shutil.copytree(SECTIONS, directory)
    made = subprocess.run(
        ["make", "-C", directory, f"KDIR={tree}", f"KCFLAGS={flags}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return directory / "sections.ko"
