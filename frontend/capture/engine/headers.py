"""Kernel headers for bcc's compiler.

kleak's programs take no struct from kernel headers, so any tree will do that bcc can use, of
whatever version. bcc wants one tree; Debian installs two (a common one, and one of the
flavour with what was generated). This module finds a tree and, where it is split, makes a
private directory of links that looks like a whole one. Nothing is written elsewhere.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kleak.errors import UnsupportedError

ENVIRONMENT = "KLEAK_KERNEL_HEADERS"


@dataclass(frozen=True, slots=True)
class HeaderTree:
    """Kernel headers that bcc can use. ``common`` is None where ``generated`` has everything."""

    generated: Path
    common: Path | None
    proc_kheaders: bool = False

    @property
    def description(self) -> str:
        """Which tree this is, for ``--verbose``."""
        if self.proc_kheaders:
            return "/sys/kernel/kheaders.tar.xz"
        return str(self.generated)


def architecture() -> str:
    """Return the kernel's name of this machine's architecture directory (``arch/*``)."""
    machine = platform.machine()
    return {"x86_64": "x86", "aarch64": "arm64"}.get(machine, machine)


def find_headers(explicit: str | None = None) -> HeaderTree:
    """Return the best header tree of this machine.

    Order: the one asked for (argument, then ``KLEAK_KERNEL_HEADERS``), the running kernel's,
    kheaders, any installed tree, newest first, and those that ``make setup`` unpacked.

    Raises UnsupportedError where there is none, or where the one asked for is not usable.
    """
    asked = explicit or os.environ.get(ENVIRONMENT)
    if asked:
        tree = _usable(Path(asked))
        if tree is None:
            raise UnsupportedError(f"{asked} is no kernel header tree that bcc can use")
        return tree
    release = os.uname().release
    for build in (Path(f"/lib/modules/{release}/build"), Path(f"/usr/src/linux-headers-{release}")):
        tree = _usable(build)
        if tree is not None:
            return tree
    kheaders = Path("/sys/kernel/kheaders.tar.xz")
    if kheaders.exists():
        return HeaderTree(kheaders, None, proc_kheaders=True)
    for directory in _installed():
        tree = _usable(directory)
        if tree is not None:
            return tree
    raise UnsupportedError(
        "no kernel headers for bcc: install linux-headers of any version "
        f"(Debian: apt-get install linux-headers-amd64) or name a tree in {ENVIRONMENT}"
    )


def kernel_cache() -> Path:
    """Return the directory of the kernels that ``make setup`` unpacked, existing or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("KLEAK_KERNELS") or os.path.join(cache, "kleak", "kernels"))


def _installed() -> Iterator[Path]:
    # What begins with a dot in the cache is still being unpacked or built.
    patterns = (
        (Path("/usr/src"), "linux-headers-*"),
        (Path("/usr/src/kernels"), "*"),
        (kernel_cache(), "[!.]*/usr/src/linux-headers-*"),
    )
    for root, pattern in patterns:
        with suppress(PermissionError):  # root's cache, asked by somebody else
            yield from sorted(root.glob(pattern), reverse=True)


def _usable(directory: Path) -> HeaderTree | None:
    """Return the tree at ``directory`` if it was generated for this architecture."""
    if not (directory / "include/generated/autoconf.h").is_file():
        return None
    if not (directory / "arch" / architecture() / "include/generated").is_dir():
        return None
    if (directory / "include/linux/kconfig.h").is_file():
        return HeaderTree(directory, None)
    common = _debian_common(directory.resolve())
    return None if common is None else HeaderTree(directory, common)


def _debian_common(flavour: Path) -> Path | None:
    """Return the tree that Debian's ``linux-headers-VERSION-FLAVOUR`` goes with, beside it."""
    base = flavour.name
    while "-" in base:
        base, _, dropped = base.rpartition("-")
        for name in (f"{base}-common", f"{base}-common-{dropped}"):
            common = flavour.with_name(name)
            if (common / "include/linux/kconfig.h").is_file():
                return common
    return None


@contextmanager
def bcc_environment(tree: HeaderTree) -> Iterator[None]:
    """Let bcc, within the context, compile against ``tree``. Environment and files are undone."""
    if tree.proc_kheaders:
        yield  # bcc looks there by itself
        return
    before = os.environ.get("BCC_KERNEL_SOURCE")
    with tempfile.TemporaryDirectory(prefix="kleak-headers-") as scratch:
        source = tree.generated
        if tree.common is not None:
            source = Path(scratch)
            _link_together(tree.common, tree.generated, source)
        os.environ["BCC_KERNEL_SOURCE"] = str(source)
        try:
            yield
        finally:
            if before is None:
                del os.environ["BCC_KERNEL_SOURCE"]
            else:
                os.environ["BCC_KERNEL_SOURCE"] = before


def _link_together(common: Path, generated: Path, target: Path) -> None:
    for part in ("include", f"arch/{architecture()}/include"):
        (target / part).mkdir(parents=True)
        for tree in (generated, common):
            for entry in (tree / part).iterdir():
                link = target / part / entry.name
                if not link.exists():
                    link.symlink_to(entry.absolute())
