"""What the user of `kleak watch` has asked to see, and what each key changes of it."""

from __future__ import annotations

import curses
from dataclasses import dataclass, replace
from enum import Enum, auto

from kleak.errors import UsageError
from kleak.watch.readings import parse_filter


class Action(Enum):
    """What a key asks for beyond the view."""

    QUIT = auto()
    MARK = auto()
    SINCE = auto()
    SAVE = auto()


@dataclass(frozen=True, slots=True)
class View:
    """``order`` is one of ORDERS of readings.py. ``page`` counts from 0. ``prompt`` is the filter
    that is being typed, None if none is. ``message`` is for the next picture only.
    """

    order: str = "bytes"
    inverted: bool = False
    filter_text: str = ""
    frozen: bool = False
    page: int = 0
    help: bool = False
    prompt: str | None = None
    message: str = ""


ORDER_KEYS = {
    "b": "bytes",
    "c": "count",
    "d": "change",
    "r": "rate",
    "o": "age",
    "f": "function",
    "l": "module",
    "a": "allocator",
}
_ACTIONS = {
    "q": Action.QUIT,
    "\x04": Action.QUIT,
    "m": Action.MARK,
    "t": Action.SINCE,
    "s": Action.SAVE,
}
# What terminals send for the page and arrow keys too, for those that curses does not know.
_NEXT_PAGE = ("n", curses.KEY_NPAGE, curses.KEY_DOWN, "\x1b[6~", "\x1b[B", "\x1bOB")
_PREVIOUS_PAGE = ("p", curses.KEY_PPAGE, curses.KEY_UP, "\x1b[5~", "\x1b[A", "\x1bOA")


def press(view: View, key: str | int) -> tuple[View, Action | None]:
    """The view after a key, and what else there is to do. ``key`` is a character, the number of
    curses for a key without one, or a sequence that begins with ESC.
    """
    view = replace(view, message="")
    if view.prompt is not None:
        return _type(view, view.prompt, key), None
    if view.help:
        return replace(view, help=False), Action.QUIT if key == "q" else None
    if isinstance(key, str) and key in _ACTIONS:
        return view, _ACTIONS[key]
    if isinstance(key, str) and key in ORDER_KEYS:
        order = ORDER_KEYS[key]
        return replace(view, order=order, inverted=False, page=0), None
    if key == "i":
        return replace(view, inverted=not view.inverted, page=0), None
    if key == " ":
        return replace(view, frozen=not view.frozen), None
    if key == "/":
        return replace(view, prompt=view.filter_text), None
    if key in ("?", "h"):
        return replace(view, help=True), None
    if key in _NEXT_PAGE:
        return replace(view, page=view.page + 1), None
    if key in _PREVIOUS_PAGE:
        return replace(view, page=max(0, view.page - 1)), None
    return view, None


def _type(view: View, typed: str, key: str | int) -> View:
    """The view after a key at the filter's prompt."""
    if key in ("\r", "\n", curses.KEY_ENTER):
        try:
            parse_filter(typed)
        except UsageError as error:
            return replace(view, prompt=None, message=str(error))
        return replace(view, prompt=None, filter_text=typed.strip(), page=0)
    if key == "\x1b":
        return replace(view, prompt=None)
    if key in ("\x7f", "\b", curses.KEY_BACKSPACE):
        return replace(view, prompt=typed[:-1])
    if key == "\x15":  # Ctrl-U
        return replace(view, prompt="")
    if isinstance(key, str) and key.isprintable():
        return replace(view, prompt=typed + key)
    return view
