"""A cache of kernels that are none, for what looks them up."""

from __future__ import annotations

from pathlib import Path

import pytest

IMAGE = bytes(0x202) + b"HdrS" + bytes(100)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel cache with three kernels and two series, and one that is being unpacked."""
    monkeypatch.setenv("KLEAK_KERNELS", str(tmp_path))
    for release in ("6.1.0-56-amd64", "6.9.10-amd64", "6.12.117+deb12-amd64", "6.18.1-amd64"):
        directory = ".unpack.8lxtHs" if release == "6.18.1-amd64" else release
        boot = tmp_path / directory / "boot"
        boot.mkdir(parents=True)
        (boot / f"vmlinuz-{release}").write_bytes(IMAGE)
    (tmp_path / "6.1").symlink_to("6.1.0-56-amd64")
    (tmp_path / "6.12").symlink_to("6.12.117+deb12-amd64")
    return tmp_path
