"""The one place that builds modules: against each kernel of the cache, out of the tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from kleak.vm.kernels import release_of
from tests.support import build_modules

SOURCE = """
#include <linux/module.h>
static int __init begin(void) { return 0; }
static void __exit end(void) { }
module_init(begin);
module_exit(end);
MODULE_LICENSE("GPL");
"""


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A unit with one module, and a build directory of its own."""
    monkeypatch.setattr(build_modules, "BUILD", tmp_path / "build")
    directory = tmp_path / "small"
    directory.mkdir()
    (directory / "Makefile").write_text("obj-m := small.o\n")
    (directory / "small.c").write_text(SOURCE)
    return directory


def test_builds_for_the_kernel_with_debug_information(kernel: Path, unit: Path) -> None:
    (module,) = build_modules.build_unit(unit, kernel)
    with module.open("rb") as file:
        elf = ELFFile(file)
        modinfo = elf.get_section_by_name(".modinfo").data().split(b"\0")
        names = [
            compiled.get_top_DIE().attributes["DW_AT_name"].value.decode()
            for compiled in elf.get_dwarf_info().iter_CUs()
        ]
    assert any(word.startswith(f"vermagic={release_of(kernel)} ".encode()) for word in modinfo)
    assert str(unit / "small.c") in names
    assert sorted(path.name for path in unit.iterdir()) == ["Makefile", "small.c"]


def test_builds_again_only_what_changed(kernel: Path, unit: Path) -> None:
    (module,) = build_modules.build_unit(unit, kernel)
    first = module.stat().st_mtime_ns
    assert build_modules.build_unit(unit, kernel) == [module]
    assert module.stat().st_mtime_ns == first
    (unit / "small.c").write_text(SOURCE + 'MODULE_DESCRIPTION("changed");\n')
    build_modules.build_unit(unit, kernel)
    assert b"description=changed" in module.read_bytes()


def test_a_unit_that_does_not_build_shows_the_compiler_error(kernel: Path, unit: Path) -> None:
    (unit / "small.c").write_text("#error on purpose\n")
    with pytest.raises(build_modules.BuildError, match="#error on purpose"):
        build_modules.build_unit(unit, kernel)
