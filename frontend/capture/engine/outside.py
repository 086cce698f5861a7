"""Programs compiled by the machine around this one: an emulated guest takes a minute and more.

``kleak vm`` names a directory that it shares with its guest. There the guest leaves an order as
``KEY.order``, and the host the programs as ``KEY.programs``, or ``KEY.failed``.
"""

from __future__ import annotations

import os
import time
import zlib
from contextlib import suppress
from pathlib import Path

from kleak.capture.engine.order import Order
from kleak.capture.engine.program_image import ProgramImage

ENVIRONMENT = "KLEAK_COMPILE_OUTSIDE"
"""The directory; unset where nobody outside compiles."""

_ANSWER_LIMIT_S = 60.0
_POLL_S = 0.1


def compiled_outside(order: Order) -> ProgramImage | None:
    """Return the programs; None where nobody outside compiles, or could not."""
    place = os.environ.get(ENVIRONMENT)
    if not place:
        return None
    directory = Path(place)
    scratch = directory / f"{order.key}.{os.getpid()}"
    answer, failed = (directory / f"{order.key}.{end}" for end in ("programs", "failed"))
    with suppress(OSError):
        scratch.write_bytes(order.to_bytes())
        scratch.rename(directory / f"{order.key}.order")
        limit = time.monotonic() + _ANSWER_LIMIT_S
        while time.monotonic() < limit and not failed.exists():
            if answer.exists():
                with suppress(ValueError, KeyError, TypeError, zlib.error):  # another version's
                    return ProgramImage.from_bytes(answer.read_bytes())
                return None
            time.sleep(_POLL_S)
    return None
