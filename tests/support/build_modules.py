"""Builds the kernel modules of tests/modules and examples, outside the source tree.

Each directory with a Makefile or Kbuild there is one unit. It is copied to
build/modules/RELEASE/UNIT and built there, so two kernels do not trample one another.
As a script it builds the units that it is given and prints the modules' paths:

    .venv/bin/python tests/build_modules.py --kernel 6.12 examples/leaky
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from kleak.errors import KleakError
from kleak.vm.kernels import BUILDER, find_kernel, release_of

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build" / "modules"


class BuildError(Exception):
    """A unit does not build. The text holds what make said."""


def units() -> list[Path]:
    """Return the directories with modules to build."""
    parents = (TOP / "tests" / "modules", TOP / "examples")
    makefiles = {file.parent for top in parents for file in top.glob("**/Makefile")}
    return sorted(makefiles | {file.parent for top in parents for file in top.glob("**/Kbuild")})


def build_unit(unit: Path, kernel: Path) -> list[Path]:
    """Build the modules of ``unit`` for the kernel with image ``kernel``; return their paths.

    The debug information names the files of ``unit``, not their copies.

    Raises BuildError with make's output.
    """
    unit = unit.resolve()
    release = release_of(kernel)
    headers = kernel.parent.parent / "lib" / "modules" / release / "build"
    work = BUILD / release / unit.name
    # make does not see that a kernel of the same release was built anew, or is another one.
    built_for = work / ".kernel"
    identity = f"{kernel.resolve()} {kernel.stat().st_mtime_ns}\n"
    if not built_for.exists() or built_for.read_text() != identity:
        shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(unit, work, dirs_exist_ok=True, copy_function=_copy_if_changed)
    built_for.write_text(identity)
    make = [
        "make",
        f"--directory={headers}",
        f"M={work}",
        f"KCFLAGS=-std=gnu11 -g -fdebug-prefix-map={work}={unit}",
        "modules",
    ]
    made = subprocess.run(
        _in_builder(kernel.parent.parent, work, make),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    modules = sorted(work.glob("*.ko"))
    if made.returncode != 0 or not modules:
        raise BuildError(f"{unit} does not build for {release}:\n{made.stdout}")
    return modules


def _in_builder(tree: Path, work: Path, command: list[str]) -> list[str]:
    """Return ``command`` as it runs in the root directory with the compiler that the kernel at
    ``tree`` was built with, where .ci/suite-kernel made one; this machine's has to do elsewhere.
    """
    builder = tree / BUILDER
    if not builder.is_dir():
        return command
    root = builder.resolve()
    mounts = [(Path("/proc"), root / "proc"), (Path("/dev"), root / "dev")]
    for directory in (tree.resolve(), work.resolve()):
        inside = root / directory.relative_to("/")
        inside.mkdir(parents=True, exist_ok=True)
        mounts.append((directory, inside))
    script = "".join(
        f"mount --rbind {shlex.quote(str(outside))} {shlex.quote(str(inside))} && "
        for outside, inside in mounts
    )
    script += f"exec chroot {shlex.quote(str(root))} {shlex.join(command)}"
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--mount", "sh", "-c", script]


def build_all(kernel: Path) -> dict[str, Path]:
    """Build every unit for ``kernel``; return the modules by file name, "leaky.ko"."""
    modules: dict[str, Path] = {}
    for unit in units():
        for module in build_unit(unit, kernel):
            if module.name in modules:
                raise BuildError(f"two units build {module.name}: {unit} is one of them")
            modules[module.name] = module
    return modules


def _copy_if_changed(source: str, target: str) -> str:
    # An untouched copy keeps its time, so make has nothing to do the second time.
    old, new = Path(target), Path(source)
    if not old.exists() or old.read_bytes() != new.read_bytes():
        shutil.copyfile(source, target)
    return target


def main(arguments: Iterable[str] | None = None) -> int:
    """Build the units named on the command line."""
    parser = argparse.ArgumentParser(description="Build kernel modules out of the source tree.")
    parser.add_argument("--kernel", help="image, release or series; the newest if not given")
    parser.add_argument("unit", nargs="+", type=Path, help="directory with a Makefile or Kbuild")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    try:
        for unit in chosen.unit:
            for module in build_unit(unit, find_kernel(chosen.kernel)):
                print(module)
    except (BuildError, KleakError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
