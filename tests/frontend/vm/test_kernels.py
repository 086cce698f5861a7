"""Kernels by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kleak.errors import UsageError
from kleak.vm.kernels import BUILDER, find_kernel, release_of


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("6.1", "6.1.0-56-amd64"),
        ("6.12", "6.12.117+deb12-amd64"),
        ("6.9.10-amd64", "6.9.10-amd64"),
        (None, "6.12.117+deb12-amd64"),
    ],
)
def test_finds_a_kernel_of_the_cache(cache: Path, name: str | None, release: str) -> None:
    image = find_kernel(name)
    assert image == cache / release / "boot" / f"vmlinuz-{release}"
    assert release_of(image) == release


def test_a_kernel_with_a_compiler_of_its_own_is_booted_by_name_only(cache: Path) -> None:
    boot = cache / "7.3.4+deb13-amd64" / "boot"
    boot.mkdir(parents=True)
    shutil.copy(find_kernel(), boot / "vmlinuz-7.3.4+deb13-amd64")
    assert release_of(find_kernel()) == "7.3.4+deb13-amd64"
    (boot.parent / BUILDER).mkdir()
    assert release_of(find_kernel()) == "6.12.117+deb12-amd64"
    assert release_of(find_kernel("7.3.4+deb13-amd64")) == "7.3.4+deb13-amd64"


@pytest.mark.parametrize("name", ["6.7", "*", "../6.1", ""])
def test_an_unknown_kernel_is_a_usage_error_that_names_the_known(cache: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"known releases: .*6\.12\.117"):
        find_kernel(name)


def test_a_file_that_is_no_kernel_is_a_usage_error(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("x" * 4096)
    with pytest.raises(UsageError, match="not a kernel image"):
        find_kernel(str(tmp_path / "notes"))
