"""The doctor on the running kernel, against what then works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KPTR_RESTRICT = Path("/proc/sys/kernel/kptr_restrict")


def kleak(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kleak", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    result = kleak("doctor", "--json", cwd=tmp_path_factory.mktemp("doctor"))
    assert result.stderr == ""
    return result.returncode, json.loads(result.stdout)


def test_events_are_those_that_a_capture_then_has(
    examined: tuple[int, dict[str, Any]], tmp_path: Path
) -> None:
    _, document = examined
    assert document["can_run"]["run"]
    result = kleak(
        "run", "--scope", "do_signalfd4", "--json", "-", "--", "true", cwd=tmp_path
    )  # fmt: skip
    means = json.loads(result.stdout)["trust"]["means"]
    headers = means.pop("kernel headers")
    said = {
        row["name"]: row["found"]
        for row in document["findings"]
        if row["area"] == "events" and row["state"] != "no"
    }
    for event in ("module_load", "module_free"):  # which kleak run does not want
        said.pop(event, None)
    assert said == means
    (found,) = [row["found"] for row in document["findings"] if row["name"] == "kernel headers"]
    assert found.startswith(headers)


def test_status_is_that_of_the_main_job(
    examined: tuple[int, dict[str, Any]], tmp_path: Path
) -> None:
    status, document = examined
    assert status == (0 if document["can_run"]["module"] else 3)
    assert document["can_run"]["module"] == Path("/proc/modules").exists()


def test_it_changes_nothing(tmp_path: Path) -> None:
    def look() -> tuple[str, str, str]:
        return (
            KPTR_RESTRICT.read_text(),
            Path("/proc/mounts").read_text(),
            Path("/proc/sys/kernel/perf_event_max_stack").read_text(),
        )

    before = KPTR_RESTRICT.read_text()
    try:
        KPTR_RESTRICT.write_text("2")
        state = look()
        assert kleak("doctor", cwd=tmp_path).stderr == ""
        assert look() == state
        assert not list(tmp_path.iterdir())
    finally:
        KPTR_RESTRICT.write_text(before)


def test_without_root(tmp_path: Path) -> None:
    """As nobody, who may not even read this tree: the examination itself is run in a fork."""
    script = (
        "import os, sys; import bcc; from kleak.cli import main\n"
        "import kleak.commands.doctor; os.setgid(65534); os.setuid(65534)\n"
        "sys.argv = ['kleak', 'doctor', '--json']; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd="/", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    document = json.loads(result.stdout)
    assert document["can_run"] == {"module": False, "run": False}
    (root,) = [row for row in document["findings"] if row["name"] == "root"]
    assert (root["state"], root["mend"]) == ("no", "sudo kleak doctor")
