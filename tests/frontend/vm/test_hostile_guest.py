"""What a guest's root may leave in the directory that host and guest share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kleak.vm.boot import _read_status


@pytest.mark.parametrize(
    ("text", "status"),
    [("0\n", 0), ("255", 255), ("256", None), ("9" * 5000, None), ("-1", None), ("", None)],
)
def test_only_a_status_is_believed(tmp_path: Path, text: str, status: int | None) -> None:
    (tmp_path / "status").write_text(text)
    assert _read_status(tmp_path) == status


def test_links_and_fifos_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("7")
    (tmp_path / "status").symlink_to(secret)
    assert _read_status(tmp_path) is None
    (tmp_path / "status").unlink()
    os.mkfifo(tmp_path / "status")
    assert _read_status(tmp_path) is None
