"""Names for the code of a kernel that runs on, with modules that come after the start."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kleak.capture.machine.kernel_state import loaded_modules, read_kernel_table
from kleak.model.session import Frame
from kleak.symbols.kernel_table import KernelTable
from kleak.symbols.symboliser import Symboliser

_MODULES_EVERY_NS = 1_000_000_000


class RunningNames:
    """Names of return addresses, also of modules that were loaded since the start."""

    def __init__(self, table: KernelTable, globs: Sequence[str]) -> None:
        """``globs``: functions that a person named so, and wants to see called so."""
        self._table = table
        self._globs = globs
        self._symbols = Symboliser(table)
        self._modules = frozenset(loaded_modules())
        self._due_ns = 0

    def resolve(self, address: int, epoch: int) -> Frame:
        """Return the frame of a return address as it is now, whatever the epoch."""
        frame = self._symbols.resolve(address, 0)
        # The tracer's own programs have no names either: ask once for many addresses.
        if frame.symbol is None and time.monotonic_ns() >= self._due_ns:
            self._due_ns = time.monotonic_ns() + _MODULES_EVERY_NS
            modules = frozenset(loaded_modules())
            if not modules <= self._modules:
                self._table = read_kernel_table()
                for glob in self._globs:
                    self._table.prefer(glob)
                self.forget()
                frame = self._symbols.resolve(address, 0)
            self._modules = modules
        return frame

    def era(self, epoch: int) -> int:
        """Return the same number for all epochs."""
        return 0

    def forget(self) -> None:
        """Forget what was asked: there may be very many different addresses in a day."""
        self._symbols = Symboliser(self._table)
