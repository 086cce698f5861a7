"""What may be asked of a compiler, and by whom."""

from __future__ import annotations

import json

import pytest

from kleak.capture.engine.order import Order
from kleak.errors import UsageError

ORDER = Order.of({"MAX_OUTSTANDING": 1009, "OFF_MODULE_NAME": 24})


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(ORDER.to_bytes()), **fields}).encode()


def test_an_order_comes_back_as_it_was() -> None:
    assert Order.from_bytes(ORDER.to_bytes()) == ORDER
    assert ORDER.flags == ("-DMAX_OUTSTANDING=0x3f1", "-DOFF_MODULE_NAME=0x18")


def test_other_constants_are_another_order() -> None:
    assert Order.of({"MAX_OUTSTANDING": 1013, "OFF_MODULE_NAME": 24}).key != ORDER.key


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[" * 50_000,
        b"[]",
        b"{}",
        changed(flags=7),
        changed(flags=[7]),
        changed(flags=["-include/etc/shadow"]),
        changed(flags=["-DX=system(1)"]),
        changed(flags=["-DX=0x1 -I/tmp"]),
        changed(flags=["-DX=0x1\n"]),
        changed(flags={"-fplugin=x.so": 1}),
    ],
)
def test_what_is_no_order_is_refused(content: bytes) -> None:
    with pytest.raises(UsageError, match="no order of kleak's programs"):
        Order.from_bytes(content)


def test_an_order_of_another_kleak_is_refused() -> None:
    with pytest.raises(UsageError, match="another version of kleak"):
        Order.from_bytes(changed(source="0" * 64))
