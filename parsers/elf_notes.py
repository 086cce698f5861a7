"""ELF notes, as /sys/kernel/notes and /sys/module/NAME/notes/.note.gnu.build-id hold them.

Each is three 32-bit words (length of the name, length of the content, type), the name and the
content, both filled up to four bytes; ``notes_read()`` of kernel/ksysfs.c copies the section as
the linker made it. The build-id is the note of type 3 with name "GNU".
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct("=III")
_NT_GNU_BUILD_ID = 3


def parse_build_id(notes: bytes) -> str | None:
    """Return the build-id among ``notes``, hexadecimal; None where there is none."""
    position = 0
    while position + _HEADER.size <= len(notes):
        name_size, content_size, kind = _HEADER.unpack_from(notes, position)
        name_at = position + _HEADER.size
        content_at = name_at + _padded(name_size)
        content = notes[content_at : content_at + content_size]
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0":
            return content.hex() if len(content) == content_size > 0 else None
        position = content_at + _padded(content_size)
    return None


def _padded(size: int) -> int:
    return size + 3 & ~3
