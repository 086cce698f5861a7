"""The options that make calls of the module fail on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import click

from kleak.commands.options.option_group import option_group
from kleak.errors import UsageError
from kleak.faults.plan import Choice


@dataclass(frozen=True, slots=True)
class FaultOptions:
    """Whether calls fail, and which; ``resume`` is a session to go on with."""

    fail_calls: bool
    fail_every: bool
    fail_limit: int | None
    fail_only: tuple[str, ...]
    resume: str | None

    @property
    def wanted(self) -> bool:
        """Whether calls fail at all. Raises UsageError for an option that means nothing then."""
        given = {
            "--fail-every": self.fail_every,
            "--fail-limit": self.fail_limit,
            "--fail-only": self.fail_only,
            "--resume": self.resume,
        }
        if not self.fail_calls:
            for option, value in given.items():
                if value:
                    raise UsageError(f"{option} belongs to --fail-calls")
        elif self.resume is not None and (self.fail_every or self.fail_limit or self.fail_only):
            raise UsageError("--resume goes on with what its session planned: no other --fail-...")
        return self.fail_calls

    @property
    def choice(self) -> Choice:
        """Which failures are wanted."""
        return Choice(self.fail_every, self.fail_only, self.fail_limit)


fault_options = option_group(
    "faults",
    FaultOptions,
    click.option(
        "--fail-calls",
        is_flag=True,
        help="Test error paths: make one call of the module fail in each cycle, in a changed copy "
        "of it, and see what stays.",
    ),
    click.option(
        "--fail-every",
        is_flag=True,
        help="Fail each call every time that it is made, not the first, second and last time only.",
    ),
    click.option(
        "--fail-limit", metavar="N", type=click.IntRange(1), help="Try N failures at most."
    ),
    click.option(
        "--fail-only",
        metavar="PATTERN",
        multiple=True,
        help="Fail only calls of or in functions that this glob names. May be given several times.",
    ),
    click.option(
        "--resume",
        metavar="SESSION",
        type=click.Path(exists=True, dir_okay=False),
        help="Go on with the failures that a session has left, after a crash.",
    ),
)
