"""What the programs are compiled of: the C text of this kleak, and constants of another kernel.

kleak's programs take no struct from kernel headers, and BPF's instructions are the same everywhere,
so any machine with bcc can compile for any other one.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from kleak.capture.engine.bpf_source import read_source
from kleak.errors import UsageError

LIMIT_BYTES = 1 << 16
"""No order is larger, and none is read that is."""

_FLAG = re.compile(r"-D[A-Za-z_][A-Za-z0-9_]{0,79}=0x[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True)
class Order:
    """``source``: SHA-256 of the C text. ``flags``: of the compiler, constants all."""

    source: str
    flags: tuple[str, ...]

    @classmethod
    def of(cls, constants: dict[str, int]) -> Order:
        """Return the order for this kleak's C text with ``constants``."""
        return cls(_digest(), tuple(f"-D{name}={value:#x}" for name, value in constants.items()))

    @property
    def key(self) -> str:
        """What tells it from other orders: 64 hexadecimal digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return what from_bytes() reads."""
        return json.dumps({"source": self.source, "flags": self.flags}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Order:
        """Return the order that ``content`` holds, whoever wrote it.

        Raises UsageError where it holds none, or one for the C text of another kleak.
        """
        try:
            fields = json.loads(content)
            order = cls(fields["source"], tuple(fields["flags"]))
            right = all(_FLAG.fullmatch(flag) for flag in order.flags)
        except (ValueError, RecursionError, TypeError, KeyError):
            right = False
        if not right:
            raise UsageError("no order of kleak's programs")
        if order.source != _digest():
            raise UsageError("an order of another version of kleak: it has other programs")
        return order


def _digest() -> str:
    return hashlib.sha256(read_source().encode()).hexdigest()
