"""The error that every parser raises for text or bytes that the kernel does not write."""

from __future__ import annotations


class ParseError(ValueError):
    """Damaged or foreign input.

    ``line_number`` counts from 1; ``line`` is the offending line without its newline. Both are
    None where the input has no lines or the fault is not in one of them.
    """

    def __init__(
        self, message: str, line_number: int | None = None, line: str | None = None
    ) -> None:
        """Compose the text of the error from its parts."""
        self.line_number = line_number
        self.line = line
        where = f"line {line_number}: " if line_number is not None else ""
        quoted = f": {line!r}" if line is not None else ""
        super().__init__(f"{where}{message}{quoted}")
