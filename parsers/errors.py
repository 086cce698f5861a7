"""The error of every parser here."""

from __future__ import annotations


class ParseError(ValueError):
    """A known field of a report that does not parse, with where it stands.

    ``line_number`` counts from 1. Both it and ``line`` are None where no one line is at fault.
    """

    def __init__(
        self, message: str, line_number: int | None = None, line: str | None = None
    ) -> None:
        """``message`` says what is wrong; ``line`` is the offending line as it was read."""
        self.message = message
        self.line_number = line_number
        self.line = line
        super().__init__(message, line_number, line)

    def __str__(self) -> str:
        """The message, with line number and line where there are any."""
        where = "" if self.line_number is None else f"line {self.line_number}: "
        shown = "" if self.line is None else f": {self.line[:200]!r}"
        return f"{where}{self.message}{shown}"
