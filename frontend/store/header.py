"""How a session file begins."""

from __future__ import annotations

from pathlib import Path

from kleak.files.input_files import open_input
from kleak.store.schema import APPLICATION_ID

_BYTES = 72


def is_session(path: Path | str, *, dir_fd: int | None = None) -> bool:
    """Whether the regular file ``path`` starts as a session file does.

    ``dir_fd``: the directory that has it, where no link is followed. Raises as open_input().
    """
    with open_input(path, links=dir_fd is None, dir_fd=dir_fd) as file:
        return starts_a_session(file.read(_BYTES))


def starts_a_session(content: bytes) -> bool:
    """Whether ``content`` is the beginning of a session file."""
    # The file format of SQLite: application_id is the 32-bit number at offset 68.
    return content.startswith(b"SQLite format 3\0") and (
        content[68:_BYTES] == APPLICATION_ID.to_bytes(4, "big")
    )
