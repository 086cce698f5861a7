"""Builds tests/modules/sections against every kernel headers tree that is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kleak.capture.engine.headers import kernel_cache
from tests.support.paths import TESTS

SECTIONS = TESTS / "modules" / "sections"


def header_trees():
    """Trees a module can be built against: of the kernel cache, else where Debian puts them.

    A tree names its compiler; one that this machine does not have builds nothing here.
    """
    cache = kernel_cache()
    roots = [cache] if cache.is_dir() else [Path("/usr/src"), Path("/lib/modules")]
    found = {}
    for root in roots:
        for marker in (
            *root.glob("[!.]*/include/config/auto.conf"),
            *root.glob("[!.]*/build/include/config/auto.conf"),
            *root.glob("[!.]*/usr/src/*/include/config/auto.conf"),
        ):
            tree = marker.parents[2].resolve()
            compiler = re.search(r'^CONFIG_CC_VERSION_TEXT="?([^" ]+)', marker.read_text(), re.M)
            if compiler is None or shutil.which(compiler[1]) is not None:
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
        pytest.skip("no kernel headers to build with: run 'make setup'")
    tree, flags = request.param
    return build(tree, tmp_path_factory.mktemp("sections"), flags)


@pytest.fixture
def build_with_paths(tmp_path):
    """A function that builds sections.ko with file names rewritten, {here} being its directory."""
    if not TREES:
        pytest.skip("no kernel headers to build with: run 'make setup'")

    def rewrite(*maps):
        here = tmp_path / "sections"
        flags = " ".join(f"-ffile-prefix-map={entry}".format(here=here) for entry in maps)
        return build(TREES[-1], tmp_path, flags)

    return rewrite


def build(tree, directory, flags):
    """Copy the module's source to ``directory``, build it there, return the .ko."""
    here = directory / "sections"
    shutil.copytree(SECTIONS, here)
    made = subprocess.run(
        ["make", "-C", here, f"KDIR={tree}", f"KCFLAGS={flags}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return here / "sections.ko"
