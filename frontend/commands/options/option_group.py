"""What makes a group of options out of click's single ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def option_group(name: str, kind: type[Any], *options: Decorator) -> Callable[[Command], Command]:
    """Return a decorator that adds ``options`` to a command, shown in this order.

    What they say reaches the command as one value ``name`` of the dataclass ``kind``, each of
    whose fields is the parameter of an option, or a group that was added above this one.
    """
    parts = [field.name for field in fields(kind)]

    def add(command: Command) -> Command:
        @wraps(command)
        def call(*arguments: Any, **values: Any) -> Any:
            values[name] = kind(**{part: values.pop(part) for part in parts})
            return command(*arguments, **values)

        decorated: Any = call
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return add
