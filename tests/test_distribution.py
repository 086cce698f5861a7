"""The wheel and the sdist: what they hold, and that they work with the distribution's Python."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import TOP

PYTHON = "/usr/bin/python3"

pytestmark = pytest.mark.tools


def run(*command, cwd, status=0):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory away from the checkout: a copy, the sdist, the wheel made of it, a venv."""
    place = tmp_path_factory.mktemp("distribution")
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in files.decode().rstrip("\0").split("\0"):
        target = place / "checkout" / name
        if (TOP / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((TOP / name).read_bytes())
    # pip makes no sdist; setuptools' hook for it is what `python -m build` calls.
    run(PYTHON, "-m", "venv", "--system-site-packages", place / "venv", cwd=place)
    pip = (place / "venv/bin/python", "-m", "pip", "-q", "--disable-pip-version-check")
    run(*pip, "install", "setuptools>=68", "wheel", cwd=place)
    hook = f"from setuptools.build_meta import build_sdist; build_sdist({str(place / 'dist')!r})"
    (place / "dist").mkdir()
    run(place / "venv/bin/python", "-c", hook, cwd=place / "checkout")
    [sdist] = (place / "dist").glob("*.tar.gz")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", place / "dist", sdist, cwd=place)
    [wheel] = (place / "dist").glob("*.whl")
    run(*pip, "install", wheel, cwd=place)
    return place


def expected():
    """The files of the package: those of the three folders that are it."""
    folders = {"frontend": "kleak", "parsers": "kleak/parsers", "bpf": "kleak/bpf"}
    for folder, package in folders.items():
        for path in (TOP / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{package}/{path.relative_to(TOP / folder)}"


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(place):
    [wheel] = (place / "dist").glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == set(expected())


def test_the_sdist_holds_what_the_wheel_is_made_of(place):
    [sdist] = (place / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "frontend/snapshots/collect.sh",
        "bpf/slab.c",
    } <= held


def test_the_installed_commands_run(place):
    kleak = place / "venv/bin/kleak"
    assert run(kleak, "--version", cwd=place).startswith("kleak, version ")
    assert run(kleak, "collect", "--script", cwd=place).startswith("#!/bin/sh")
    sample = TOP / "tests/data/sessions/v1/6.12--leaky.kleak"
    page = run(kleak, "report", sample, "--format", "html", cwd=place, status=1)
    assert "forget_rings" in page
    where = run(place / "venv/bin/python", "-c", "import kleak; print(kleak.__file__)", cwd=place)
    assert Path(where.strip()).is_relative_to(place / "venv")


@pytest.mark.host
def test_the_installed_programs_for_the_kernel_compile_and_trace(place):
    kleak = place / "venv/bin/kleak"
    command = ("run", "--scope", "do_signalfd4", "-o", "s.kleak", "--", sys.executable, "-c", "")
    run(kleak, *command, cwd=place)
    assert (place / "s.kleak").exists()
    shown = subprocess.run([kleak, "doctor"], capture_output=True, text=True, check=False)
    assert shown.returncode in (0, 3), shown.stderr
    assert "BTF" in shown.stdout
