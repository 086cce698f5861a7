"""The options that bound and feed the tracer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click

from kleak.capture.engine.records import Limits
from kleak.commands.options.option_group import Command, option_group


@dataclass(frozen=True, slots=True)
class TracerOptions:
    """The sizes of the maps, and the header tree for bcc, if one was named."""

    max_outstanding: int
    max_stacks: int
    kernel_headers: str | None

    @property
    def limits(self) -> Limits:
        """The map sizes; totals need a row for a stack in each cycle."""
        totals = max(Limits().totals, 2 * self.max_stacks)
        return Limits(self.max_outstanding, self.max_stacks, totals)


headers_option = click.option(
    "--kernel-headers",
    metavar="DIR",
    type=click.Path(),
    help="Header tree for bcc, of any version (also KLEAK_KERNEL_HEADERS).",
)

no_kmemleak_option = click.option(
    "--no-kmemleak",
    is_flag=True,
    help="Do not ask kmemleak, where the kernel has it: its scans may take minutes where "
    "there is much memory.",
)


def tracer_options(limits: Limits | None = None) -> Callable[[Command], Command]:
    """Add the options that make TracerOptions, ``tracer``; ``limits`` are other defaults."""
    default = limits or Limits()
    return option_group(
        "tracer",
        TracerOptions,
        headers_option,
        click.option(
            "--max-stacks",
            type=click.IntRange(1, 1_000_000),
            default=default.stacks,
            show_default=True,
            help="Distinct stacks that fit into the map, at about 1.3 kB each.",
        ),
        click.option(
            "--max-outstanding",
            type=click.IntRange(1, 16_000_000),
            default=default.outstanding,
            show_default=True,
            help="Outstanding allocations that fit into the map, at about 180 bytes each.",
        ),
    )
