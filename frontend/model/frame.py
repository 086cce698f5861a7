"""One frame of a stack. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Source:
    """A source line, as the debug information names the file."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack, normalised: never an address, so it is equal across module loads.

    ``module`` is None for the kernel's own text. ``symbol`` is None where nothing is known;
    ``offset`` is then the offset in the module's text, or the address itself for module None.
    ``offset`` is that of the return address, as the kernel prints it; ``source`` is the line
    of the call. ``source`` takes no part in equality.
    """

    module: str | None
    symbol: str | None
    offset: int
    source: Source | None = field(default=None, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Hash once: stacks are keys from capture to ranking, and a look-up hashes all frames."""
        object.__setattr__(self, "_hash", hash((self.module, self.symbol, self.offset)))

    def __hash__(self) -> int:
        """Of all that equality asks."""
        return self._hash
