"""What a look at one report comes to: one sentence, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

AGAIN = "kleak collect --drop-caches DIR (4 times or more), then kleak analyze DIR"


@dataclass(frozen=True, slots=True)
class TriageFinding:
    """One thing to know. ``ask`` is the command, or what to do, for the next witness.

    ``missing``: a witness that could not be asked, or a part of one. ``noted``: nothing abnormal,
    and large enough to be named.
    """

    abnormal: bool
    subject: str
    says: str
    ask: str | None = None
    missing: bool = False
    noted: bool = False
