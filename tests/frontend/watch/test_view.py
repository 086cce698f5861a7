"""What each key changes of the picture."""

from __future__ import annotations

import pytest

from kleak.watch.readings import ORDERS
from kleak.watch.view import ORDER_KEYS, Action, View, press


def after(*keys: str, view: View | None = None) -> View:
    view = view or View()
    for key in keys:
        view, _ = press(view, key)
    return view


def test_each_order_has_a_key() -> None:
    assert set(ORDER_KEYS.values()) == set(ORDERS)
    for key, order in ORDER_KEYS.items():
        assert after("i", "n", key) == View(order=order)


@pytest.mark.parametrize(
    ("key", "action"),
    [
        ("q", Action.QUIT),
        ("m", Action.MARK),
        ("t", Action.SINCE),
        ("s", Action.SAVE),
        ("x", None),
        ("\x1b[5C", None),
    ],
)
def test_actions_leave_the_view_alone(key: str, action: Action | None) -> None:
    assert press(View(message="old"), key) == (View(), action)


def test_freeze_and_invert_turn_back() -> None:
    assert after(" ").frozen
    assert not after(" ", " ").frozen
    assert after("i").inverted
    assert not after("i", "i").inverted


def test_pages() -> None:
    assert after("n", "\x1b[6~").page == 2
    assert after("n", "p", "p").page == 0


def test_filter_is_typed_with_mistakes() -> None:
    assert after("/", *"m", "\x7f", *"modulx", "\b", *"e=x").prompt == "module=x"
    assert after("/", *"q", "\r") == View(filter_text="q")
    assert after("/", *"q", "\x15", *" count>2 ", "\n").filter_text == "count>2"
    assert after("/", *"q", "\x1b") == View()
    assert after("/", "\x07", "\x1b[A").prompt == ""


def test_wrong_filter_is_said_and_the_old_one_stays() -> None:
    view = after("/", "\x15", *"size>3", "\r", view=View(filter_text="count>2"))
    assert (view.filter_text, view.prompt) == ("count>2", None)
    assert view.message.startswith("filter: no key size")


def test_help_goes_with_any_key_and_q_still_quits() -> None:
    assert after("?").help
    assert press(after("?"), "m") == (View(), None)
    assert press(after("h"), "q")[1] is Action.QUIT
