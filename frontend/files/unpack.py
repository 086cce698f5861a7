"""Unpacking what a stranger has packed: a few bytes may be written to become very many."""

from __future__ import annotations

from typing import Protocol


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def unpack(decompressor: _Decompressor, packed: bytes, most_bytes: int) -> bytes:
    """Return what one stream of ``packed`` unpacks to, with an object of zlib, lzma or bz2.

    Raises ValueError where that is more than ``most_bytes``, or the stream is cut off.
    """
    content = decompressor.decompress(packed, most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it unpacks to more than {most_bytes >> 20} MiB")
    if not decompressor.eof:
        raise ValueError("it is cut off")
    return content


def most_unpacked(packed_bytes: int) -> int:
    """Return how much an honest file of this size unpacks to at most: code and debug information
    take 3 to 10 times what they are packed to.
    """
    return (64 << 20) + 32 * packed_bytes
