"""The options that bound and feed the tracer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click

from kleak.capture.engine.records import Limits
from kleak.capture.pointers.question import SECONDS
from kleak.commands.options.option_group import Command, option_group
from kleak.commands.options.seconds import Seconds


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


@dataclass(frozen=True, slots=True)
class EndOptions:
    """What is asked at the end of a capture."""

    no_kmemleak: bool
    no_pointers: bool
    pointer_seconds: float

    @property
    def search_seconds(self) -> float:
        """How long to search memory for pointers; 0 for not at all."""
        return 0.0 if self.no_pointers else self.pointer_seconds


end_options = option_group(
    "at_end",
    EndOptions,
    click.option(
        "--no-kmemleak",
        is_flag=True,
        help="Do not ask kmemleak, where the kernel has it: its scans may take minutes where "
        "there is much memory.",
    ),
    click.option(
        "--no-pointers",
        is_flag=True,
        help="Do not search the kernel's memory, at the end, for what points to what is "
        "outstanding.",
    ),
    click.option(
        "--pointer-seconds",
        metavar="SECONDS",
        type=Seconds(0, min_open=True),
        default=SECONDS,
        show_default=True,
        help="How long that search may take, at the lowest priority. What it does not come to the "
        "end of says nothing.",
    ),
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
