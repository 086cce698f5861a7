"""From the C text and the constants of a capture to the programs, by bcc or from the cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kleak.capture.engine.bcc_library import (
    compile_image,
    compiler_output,
    describe_bcc,
    first_error,
    import_bcc,
    stack_depth,
)
from kleak.capture.engine.bpf_source import read_source
from kleak.capture.engine.headers import HeaderTree, bcc_environment
from kleak.capture.engine.hooks import Plan
from kleak.capture.engine.order import Order
from kleak.capture.engine.outside import compiled_outside
from kleak.capture.engine.program_cache import cached_image
from kleak.capture.engine.program_image import ProgramImage
from kleak.capture.engine.records import Limits, SymbolScope
from kleak.capture.machine.kernel_state import read_kernel
from kleak.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Choices:
    """What a capture chose that its programs are compiled for.

    ``module_slots``: modules in scope at one time. ``walk_every``: one stack in so many is walked.
    """

    limits: Limits
    module_slots: int
    symbols: SymbolScope | None
    own_calls: bool
    walk_every: int

    def constants(self, plan: Plan) -> dict[str, int]:
        """Return the constants of bpf/config.h, and those that the kernel's types decided."""
        constants = dict(plan.constants)
        constants["MAX_OUTSTANDING"] = self.limits.outstanding
        constants["FILTER_SLOTS"] = self.limits.filter_slots
        constants["MAX_STACKS"] = self.limits.stacks
        constants["MAX_TOTALS"] = self.limits.totals
        constants["MAX_MODULES"] = self.module_slots
        constants["STACK_DEPTH"] = stack_depth()
        if self.own_calls:
            constants["OWN_CALLS"] = 1
        if self.walk_every > 1:
            constants["SAMPLE_EVERY"] = self.walk_every
        if self.symbols is not None and not self.symbols.everything:
            constants["SYMBOL_WORDS"] = self.symbols.bitmap_words
        return constants


def compile_programs(constants: dict[str, int], headers: HeaderTree) -> tuple[ProgramImage, bool]:
    """Return the programs, and whether they had been compiled before.

    Raises UnsupportedError where bcc is missing or refuses.
    """
    order = Order.of(constants)
    # All that the outcome depends on.
    depends_on = (order.key, read_kernel(), headers, describe_bcc())
    key = hashlib.sha256(f"{depends_on}".encode()).hexdigest()
    return cached_image(key, lambda: compiled_outside(order) or compile_order(order, headers))


def compile_order(order: Order, headers: HeaderTree) -> ProgramImage:
    """Compile with bcc, on this machine.

    Raises UnsupportedError where bcc is missing or refuses.
    """
    bcc = import_bcc()
    with compiler_output() as said, bcc_environment(headers):
        try:
            return compile_image(bcc, read_source(), order.flags)
        except Exception as error:  # bcc raises bare Exception for all that goes wrong
            raise UnsupportedError(
                f"bcc cannot compile kleak's programs with {headers.description}: "
                f"{first_error(said()) or error}"
            ) from error
