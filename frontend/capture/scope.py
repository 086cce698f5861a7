"""Which code counts: as a person names it, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass

from kleak.capture.engine.records import SymbolScope
from kleak.errors import TargetError, UsageError
from kleak.files.names import readable
from kleak.model.session import Target
from kleak.symbols.kernel_table import KernelTable, TextRange


@dataclass(frozen=True, slots=True)
class NamedScope:
    """``globs`` of kernel functions and names of loaded ``modules``; neither: the whole kernel.

    ``own_calls``: only what these functions allocate themselves counts.
    """

    globs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    own_calls: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What counts, by name; modules in brackets, as the kernel prints them on stacks."""
        names = (*self.globs, *(f"[{name}]" for name in self.modules)) or ("*",)
        return tuple(map(readable, names))

    @property
    def target(self) -> Target:
        """What is observed."""
        return Target("symbols", ",".join(self.names))

    def find(self, table: KernelTable) -> Scope:
        """Return where that code lies; ``table`` calls it by these names from then on.

        Raises UsageError for a glob that matches nothing, and for own calls of everything;
        TargetError for a module that is not loaded.
        """
        everything = "*" in self.globs or not (self.globs or self.modules)
        if everything and self.own_calls:
            raise UsageError("--own-calls is for a scope: give --scope GLOB or --module NAME")
        loaded = []
        for name in self.modules:
            text = table.module_text(name.replace("-", "_"))
            if text is None:
                raise TargetError(f"module {name} is not loaded; kleak module loads it")
            loaded.append(text)
        if everything:
            return Scope(SymbolScope((table.text,), everything=True), tuple(loaded))
        ranges: list[TextRange] = []
        for glob in self.globs:
            found = table.ranges_of_glob(glob)
            if not found:
                raise UsageError(f"no function of this kernel matches {readable(glob)}")
            ranges.extend(found)
            table.prefer(glob)
        ranges.sort(key=lambda text: text.start)
        return Scope(SymbolScope(tuple(ranges)) if ranges else None, tuple(loaded))


@dataclass(frozen=True, slots=True)
class Scope:
    """Code that counts: of the kernel, and of loaded modules."""

    symbols: SymbolScope | None
    loaded: tuple[TextRange, ...]
