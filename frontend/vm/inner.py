"""How this kleak is called from outside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def inner_command(command: Sequence[str]) -> list[str]:
    """Return the argument list that runs the kleak command ``command`` with this Python."""
    # Not -m, which would prefer a ./kleak to the package, and finds none in a checkout.
    script = Path(sys.executable).with_name("kleak")
    directory = Path(__file__).parent.parent
    kleak = [str(script)] if script.exists() else [sys.executable, str(directory)]
    return [*kleak, *command]
