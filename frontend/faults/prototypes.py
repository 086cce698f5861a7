"""What the running kernel's types say of the functions that could fail.

They decide whether the table (known_failures.py) is right here, and in which argument a caller may
have asked for no failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kleak.faults.known_failures import KNOWN, OTHERWISE, Returns
from kleak.parsers.btf import AmbiguousTypeError, Btf, Prototype
from kleak.parsers.errors import ParseError

BTF_DIRECTORY = Path("/sys/kernel/btf")
GFP_FORMATS = (
    Path("/sys/kernel/tracing/events/kmem/kmalloc/format"),
    Path("/sys/kernel/debug/tracing/events/kmem/kmalloc/format"),
)

MOST_REGISTERS = 6
"""Arguments that are in registers, on x86-64; arm64 has two more."""

# SLAB_PANIC of include/linux/slab.h; from Linux 6.10 on an enumerator (commit cc61eb851461,
# "slab: use an enum to define SLAB_ cache creation flags") says which bit it is.
_SLAB_PANIC = 0x00040000
_NOFAIL_IN_FORMAT = re.compile(r'0x([0-9a-f]+)[ul]*\)*\s*,\s*"__GFP_NOFAIL"', re.IGNORECASE)

UNKNOWN = "kleak does not know how it fails"


@dataclass(frozen=True, slots=True)
class Forbids:
    """The argument (0 is the first) in which one of the bits ``mask`` forbids a failure."""

    argument: int
    mask: int


@dataclass(frozen=True, slots=True)
class Failing:
    """How a function is made to fail."""

    function: str
    returns: Returns
    forbids: Forbids | None = None


class KernelTypes:
    """The types of the kernel and of the modules that a function may be in."""

    def __init__(self, directory: Path = BTF_DIRECTORY) -> None:
        """Read those of the kernel. Raises OSError and ParseError."""
        self._directory = directory
        self._kernel = (directory / "vmlinux").read_bytes()
        self.btf = Btf(self._kernel)

    def of_module(self, name: str, section: bytes | None = None) -> Btf | None:
        """The types of a module and the kernel's; None where it has none.

        Those of a loaded one, else of its file's .BTF ``section``.
        """
        try:
            data = (self._directory / name).read_bytes()
        except OSError:
            data = section or b""
        try:
            return Btf(data, self._kernel)
        except ParseError:
            return None


def how_to_fail(
    functions: Iterable[str], types: KernelTypes, modules: Mapping[str, bytes | None] | None = None
) -> tuple[dict[str, Failing], dict[str, str]]:
    """Return how each of ``functions`` is made to fail, and why the others are not.

    A function that the kernel does not have is looked for in ``modules``: names, and the .BTF
    sections of the files of those that may not be loaded.
    """
    masks = {"gfp_t": nofail_mask(types.btf), "slab_flags_t": slab_panic_mask(types.btf)}
    others: list[Btf] | None = None
    possible, refused = {}, {}
    for function in functions:
        if function not in KNOWN:
            refused[function] = UNKNOWN
            continue
        prototype = _prototype(types.btf, function)
        if prototype is None:
            if others is None:
                found = (types.of_module(*module) for module in (modules or {}).items())
                others = [one for one in found if one is not None]
            answers = (_prototype(btf, function) for btf in others)
            prototype = next((one for one in answers if one is not None), None)
        failing = _decide(function, prototype, masks)
        if isinstance(failing, str):
            refused[function] = failing
        else:
            possible[function] = failing
    return possible, refused


def contradiction(function: str, prototype: Prototype) -> str | None:
    """Say why the table cannot be right about a function with this prototype, if it cannot."""
    returns = _returns(function, prototype)
    right = {
        Returns.NULL: prototype.returns == "pointer",
        Returns.ERR_PTR: prototype.returns == "pointer",
        Returns.ERRNO: prototype.returns == "integer" and prototype.returns_signed,
        Returns.ZERO: prototype.returns == "integer",
    }
    if right[returns]:
        return None
    return f"it returns {prototype.returns} on this kernel, not {returns.value}"


def nofail_mask(btf: Btf, formats: Iterable[Path] = GFP_FORMATS) -> int | None:
    """Return __GFP_NOFAIL of this kernel; None where nothing tells."""
    bit = btf.enumerator("___GFP_NOFAIL_BIT")
    if bit is not None:
        return 1 << bit
    # Before Linux 6.9 it is a macro, but trace events print it (show_gfp_flags()).
    for path in formats:
        try:
            found = _NOFAIL_IN_FORMAT.search(path.read_text(errors="replace"))
        except OSError:
            continue
        if found is not None:
            return int(found[1], 16)
    return None


def slab_panic_mask(btf: Btf) -> int:
    """Return SLAB_PANIC of this kernel."""
    bit = btf.enumerator("_SLAB_PANIC")
    return _SLAB_PANIC if bit is None else 1 << bit


def _decide(
    function: str, prototype: Prototype | None, masks: Mapping[str, int | None]
) -> Failing | str:
    if prototype is None:
        return "the kernel's types do not have it"
    wrong = contradiction(function, prototype)
    if wrong is not None:
        return wrong
    forbids = None
    for number, (_, typedef) in enumerate(prototype.parameters):
        if typedef in masks:
            mask = masks[typedef]
            if mask is None:
                return "the kernel does not tell which bit of its flags is __GFP_NOFAIL"
            if number >= MOST_REGISTERS or forbids is not None:
                return "its flags are not in one register"
            forbids = Forbids(number, mask)
    return Failing(function, _returns(function, prototype), forbids)


def _returns(function: str, prototype: Prototype) -> Returns:
    other = OTHERWISE.get(function)
    if other is not None and other.parameter in {name for name, _ in prototype.parameters}:
        return other.returns
    return KNOWN[function]


def _prototype(btf: Btf, function: str) -> Prototype | None:
    try:
        return btf.prototype(function)
    except AmbiguousTypeError:
        return None
