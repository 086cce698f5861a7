"""Fields of a JSON document, which may be anything: TypeError where one is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kleak.model.frame import Frame, Source

_T = TypeVar("_T")


def frame(found: Any) -> Frame:
    """A frame of a stack."""
    source = maybe(table, found, "source")
    return Frame(
        maybe(text, found, "module"),
        maybe(text, found, "symbol"),
        number(found, "offset"),
        None if source is None else Source(text(source, "file"), number(source, "line")),
    )


def maybe(read: Callable[[Any, str], _T], found: Any, key: str) -> _T | None:
    """What ``read`` reads, or None where null stands."""
    return None if found[key] is None else read(found, key)


def text(found: Any, key: str) -> str:
    """The text under ``key``."""
    value = found[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is no text: {value!r:.40}")
    return value


def number(found: Any, key: str) -> int:
    """The number under ``key``, 0 or more."""
    value = found[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{key} is no number: {value!r:.40}")
    return value


def items(found: Any, key: str) -> list[Any]:
    """The list under ``key``."""
    value = found[key]
    if not isinstance(value, list):
        raise TypeError(f"{key} is no list: {value!r:.40}")
    return value


def table(found: Any, key: str) -> dict[str, Any]:
    """The object under ``key``."""
    value = found[key]
    if not isinstance(value, dict):
        raise TypeError(f"{key} is no object: {value!r:.40}")
    return value


def numbers(found: Any, key: str) -> dict[str, int]:
    """The object of numbers under ``key``."""
    inner = table(found, key)
    return {name: number(inner, name) for name in inner}


def texts(found: Any, key: str) -> dict[str, str]:
    """The object of texts under ``key``."""
    inner = table(found, key)
    return {name: text(inner, name) for name in inner}
