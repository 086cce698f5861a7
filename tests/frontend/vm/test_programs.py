"""What a guest may order, and what its root may leave where host and guest meet."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kleak.vm.programs import programs_for

KEY = "5" * 64
SECRET = "of the host"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The directory that both see; beside it a file that is none of the guest's business."""
    (tmp_path / "secret").write_text(SECRET)
    directory = tmp_path / "shared"
    directory.mkdir()
    return directory


def answered(directory: Path, *, within_s: float = 30.0) -> set[str]:
    """Have the orders in ``directory`` answered; return the names there once KEY's is."""
    with programs_for(directory):
        limit = time.monotonic() + within_s
        while time.monotonic() < limit and not (directory / f"{KEY}.failed").exists():
            time.sleep(0.05)
    return set(os.listdir(directory))


def test_what_is_no_order_fails(shared: Path) -> None:
    (shared / f"{KEY}.order").write_text("{}")
    (shared / "another.order").write_text("{}")
    assert answered(shared) == {f"{KEY}.order", f"{KEY}.failed", "another.order"}


def test_a_link_is_not_followed(shared: Path) -> None:
    (shared / f"{KEY}.order").symlink_to(shared.parent / "secret")
    (shared / f"{KEY}.failed").symlink_to(shared.parent / "planted")
    with programs_for(shared):
        limit = time.monotonic() + 30
        while (shared / f"{KEY}.failed").is_symlink() and time.monotonic() < limit:
            time.sleep(0.05)
    assert (shared / f"{KEY}.failed").read_bytes() == b""
    assert not (shared.parent / "planted").exists()
    assert (shared.parent / "secret").read_text() == SECRET


def test_an_answer_is_not_written_through_a_link(shared: Path) -> None:
    (shared / f"{KEY}.order").write_text("{}")
    (shared / f".{KEY}.failed").symlink_to(shared.parent / "secret")
    other = "6" * 64
    with programs_for(shared):
        time.sleep(1)
        (shared / f"{other}.order").write_text("{}")  # answered after the first one
        limit = time.monotonic() + 30
        while time.monotonic() < limit and not (shared / f"{other}.failed").exists():
            time.sleep(0.05)
    assert (shared / f"{other}.failed").exists()
    assert (shared.parent / "secret").read_text() == SECRET


def test_nobody_waits_at_a_fifo(shared: Path) -> None:
    os.mkfifo(shared / f"{KEY}.order")
    assert f"{KEY}.failed" in answered(shared)


def test_a_long_order_is_not_read(shared: Path) -> None:
    with (shared / f"{KEY}.order").open("wb") as file:
        file.truncate(1 << 40)
    assert f"{KEY}.failed" in answered(shared)
