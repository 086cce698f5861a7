"""Arguments and names of files, which may be any bytes, as text that can be kept."""

from __future__ import annotations

import os


def readable(name: str) -> str:
    r"""``name`` with bytes that are no UTF-8 written as ``\xff``.

    Python gives such a byte as half a surrogate pair, which no file, database or table takes.
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")
