"""The kernels that a virtual machine can boot: where they are, and what they are called."""

from __future__ import annotations

import re
from pathlib import Path

from kleak.capture.engine.headers import kernel_cache
from kleak.errors import UnsupportedError, UsageError

DEV_RELEASE = "-kleak-dev"
"""How the release of the kernel of `make dev-kernel` ends (CONFIG_LOCALVERSION)."""

BUILDER = "builder"
"""Beside a kernel of another suite: the root directory with the compiler for its modules."""


def find_kernel(name: str | None = None) -> Path:
    """Return the image to boot for ``name``: an image, a release, or a series such as "6.12".

    Releases and series are looked up in the kernel cache, then in /boot; "dev" is what `make
    dev-kernel` built. Without a name it is the newest of the cache that this machine's compiler
    builds modules for, but for that one, whose debugging makes it slow; or the newest of /boot.

    Raises:
        UsageError: nothing of that name, or it is no kernel image.
        UnsupportedError: no name given, and there is no kernel at all.
    """
    cached = sorted(kernel_cache().glob("[!.]*/boot/vmlinuz-*"))
    installed = sorted(Path("/boot").glob("vmlinuz-*"))
    if name is None:
        usual = [
            image
            for image in cached
            if not release_of(image).endswith(DEV_RELEASE)
            and not (image.parent.parent / BUILDER).exists()
        ]
        for images in (usual, installed):
            if images:
                return max(images, key=lambda image: _release_key(release_of(image))).resolve()
        raise UnsupportedError(
            f"no kernel to boot in {kernel_cache()} or /boot: run 'make setup', or name an image "
            "with --kernel"
        )
    for image in (
        Path(name),
        *kernel_cache().glob(f"{name}/boot/vmlinuz-*" if _is_plain(name) else "\0"),
        Path("/boot") / f"vmlinuz-{name}",
    ):
        if image.is_file():
            if not _is_kernel_image(image):
                raise UsageError(f"--kernel {name}: {image} is not a kernel image that boots")
            return image.resolve()
    known = ", ".join(sorted({release_of(image) for image in (*cached, *installed)})) or "none"
    raise UsageError(f"--kernel {name}: no such image or release (known releases: {known})")


def release_of(image: Path) -> str:
    """Return the release in the name of a kernel image, as Debian names it: vmlinuz-RELEASE."""
    return image.name.removeprefix("vmlinuz-")


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[\w.+~-]+", name) is not None


def _release_key(release: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for part in re.findall(r"\d+|\D+", release)
    ]


def _is_kernel_image(image: Path) -> bool:
    # The boot protocol's magic: x86 "HdrS" at 0x202 (Documentation/arch/x86/boot.rst), arm64
    # "ARM\x64" at 56 (Documentation/arch/arm64/booting.rst).
    with image.open("rb") as file:
        head = file.read(0x206)
    return head[0x202:0x206] == b"HdrS" or head[56:60] == b"ARM\x64"
