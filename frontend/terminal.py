"""What the terminal wants, if there is one."""

from __future__ import annotations

import os
import shutil
from typing import TextIO


def wants_color(stream: TextIO) -> bool:
    """Tell whether to write colours to ``stream``: a terminal that has them, whose user does not
    forbid them with NO_COLOR (https://no-color.org: any value but an empty one).
    """
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def text_width() -> int:
    """Return the columns that text may take: the terminal's, 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns
