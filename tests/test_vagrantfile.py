"""The Vagrantfile, checked by vagrant itself; no machine is made."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.paths import TOP
from tests.support.tools import need


@pytest.mark.tools
@pytest.mark.parametrize("dev_kernel", ["", "1"])
def test_vagrant_accepts_it(tmp_path, dev_kernel):
    places = {"VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot")}
    checked = subprocess.run(
        [need("vagrant"), "validate", "--ignore-provider"],
        cwd=TOP, capture_output=True, text=True, check=False,
        env={**os.environ, **places, "KLEAK_DEV_KERNEL": dev_kernel},
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "validated successfully" in checked.stdout


def test_it_provisions_with_the_script_of_make_setup():
    assert "cd /vagrant && .ci/provision" in (TOP / "Vagrantfile").read_text()
    assert "\n\t@.ci/provision\n" in (TOP / "Makefile").read_text()
