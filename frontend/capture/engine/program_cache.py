"""Compiled programs, kept: compiling takes seconds, in an emulated machine ten and more."""

from __future__ import annotations

from collections.abc import Callable

from kleak.capture.engine.cache import keep, read_kept
from kleak.capture.engine.program_image import ProgramImage

_SUFFIX = ".programs"


def cached_image(key: str, compile_image: Callable[[], ProgramImage]) -> tuple[ProgramImage, bool]:
    """Return what ``compile_image`` made before under ``key``, else what it makes now.

    The second value tells whether it was kept.
    """
    stored = read_kept(key + _SUFFIX)
    if stored is not None:
        return ProgramImage.from_bytes(stored), True
    image = compile_image()
    keep(key + _SUFFIX, image.to_bytes())
    return image, False
