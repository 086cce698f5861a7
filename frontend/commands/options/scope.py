"""The options that say which code of the running kernel counts."""

from __future__ import annotations

import click

from kleak.capture.engine.sampling import WALK_EVERY
from kleak.capture.scope import NamedScope
from kleak.commands.options.option_group import option_group

scope_options = option_group(
    "scope",
    NamedScope,
    click.option(
        "--scope",
        "globs",
        metavar="GLOB",
        multiple=True,
        help="Kernel functions that count, where they are on the stack of an allocation. "
        "May be given several times. [default: the whole kernel]",
    ),
    click.option(
        "--module",
        "modules",
        metavar="NAME",
        multiple=True,
        help="A module that is loaded already, whose functions count. May be given several times.",
    ),
    click.option(
        "--own-calls",
        is_flag=True,
        help="Only what functions in scope allocate by their own call counts, and not what others "
        "do on their behalf: a third of the cost for each that is out of scope.",
    ),
)
"""Adds the options that make a NamedScope, ``scope``."""

stacks_option = click.option(
    "--stacks",
    "walk_every",
    metavar="N",
    type=click.IntRange(1),
    default=WALK_EVERY,
    show_default=True,
    help="Where all of the kernel counts, or own calls: walk the stack of one in N allocations of "
    "each call site, and count the others by call site; 1 walks all, at a cost.",
)
