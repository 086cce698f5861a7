"""Programs that are compiled apart from the capture are those that it would compile itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kleak.capture.engine.compile import Choices, compile_order, compile_programs
from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers, kernel_cache
from kleak.capture.engine.order import Order
from kleak.capture.engine.outside import ENVIRONMENT
from kleak.capture.engine.program_image import ProgramImage
from kleak.capture.engine.records import Limits
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.vm.inner import inner_command
from kleak.vm.programs import programs_for


@pytest.fixture(scope="module")
def constants() -> dict[str, int]:
    """What a capture of one module on this kernel compiles for, were there modules."""
    plan = make_plan(read_btf(), read_kernel_table(), modules=False)
    return Choices(Limits(), 0, None, own_calls=False, walk_every=1).constants(plan)


@pytest.fixture(scope="module")
def here(constants: dict[str, int]) -> ProgramImage:
    return compile_order(Order.of(constants), find_headers())


def test_image_build(constants: dict[str, int], here: ProgramImage, tmp_path: Path) -> None:
    (tmp_path / "order").write_bytes(Order.of(constants).to_bytes())
    words = ["image", "build", str(tmp_path / "order"), "-o", str(tmp_path / "programs")]
    subprocess.run(inner_command(words), check=True)
    assert ProgramImage.from_bytes((tmp_path / "programs").read_bytes()) == here


def test_a_capture_has_its_programs_compiled_outside(
    constants: dict[str, int], here: ProgramImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLEAK_KERNELS", str(kernel_cache()))  # the headers are there
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing compiled before
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    headers = find_headers()
    monkeypatch.setattr("kleak.capture.engine.compile.compile_order", None)  # not here
    with programs_for(tmp_path):
        assert compile_programs(constants, headers) == (here, False)
    assert compile_programs(constants, headers) == (here, True)
