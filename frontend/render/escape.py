"""Names from the kernel, from modules and processes, made safe to show on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` with all that is not printable written as ``\x1b`` or ``\u202e``.

    A comm, a module or a symbol may hold any byte: control characters would move the cursor or
    set the title, and marks of writing direction would reorder the line.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
