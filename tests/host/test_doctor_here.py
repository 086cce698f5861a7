"""The doctor on the running kernel, against what then works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kleak.capture.engine.bcc_library import stack_depth
from kleak.capture.engine.bpf_maps import possible_cpus
from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.records import Limits
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.scope import NamedScope
from kleak.model.session import SELF_TEST

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


def test_a_capture_gives_the_same_reasons(
    examined: tuple[int, dict[str, Any]], tmp_path: Path
) -> None:
    found = {one["name"]: one for one in examined[1]["findings"]}
    result = kleak("run", "--scope", "do_signalfd4", "--json", "-", "--", "true", cwd=tmp_path)
    witnesses = json.loads(result.stdout)["trust"]["witnesses"]
    for name, witness in (
        ("kmemleak", "kmemleak"),
        ("page_owner", "page_owner"),
        ("allocation profiling", "allocinfo"),
    ):
        if found[name]["state"] == "no":
            assert witnesses[witness] == f"absent: {found[name]['found']}"


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
    tested = {kind: means.pop(kind) for kind in list(means) if kind.startswith(SELF_TEST)}
    assert tested == {
        SELF_TEST + row["name"]: row["found"]
        for row in document["findings"]
        if row["area"] == "self-test"
    }
    rows = [row for row in document["findings"] if row["area"] == "events"]
    # Two are none that kleak run wants.
    rows = [row for row in rows if row["name"] not in ("module_load", "module_free")]
    said = {row["name"]: row["found"] for row in rows if row["state"] != "no"}
    assert said == {event: how for event, how in means.items() if not how.startswith("absent: ")}
    assert {row["name"] for row in rows if row["state"] == "no"} == means.keys() - said.keys()
    told = "lost of what this kernel shows", "kinds not seen on this kernel"
    assert any(text in result.stderr for text in told) == (means.keys() != said.keys())
    (found,) = [row["found"] for row in document["findings"] if row["name"] == "kernel headers"]
    assert found.startswith(headers)


def test_status_is_that_of_the_main_job(
    examined: tuple[int, dict[str, Any]], tmp_path: Path
) -> None:
    status, document = examined
    assert status == (0 if document["can_run"]["module"] else 3)
    assert document["can_run"]["module"] == Path("/proc/modules").exists()


def hash_bytes(entries: int, key: int, leaf: int) -> int:
    """What the kernel takes for a preallocated hash map: htab_map_mem_usage()."""
    buckets = 1 << (entries - 1).bit_length()
    return 16 * buckets + (entries + possible_cpus()) * (48 + key + leaf)


@pytest.mark.parametrize("limits", [Limits(), Limits(200_003, 5003, 20_011)])
def test_memory_of_the_maps(limits: Limits) -> None:
    """What the kernel says of the maps is what they hold by their definitions."""
    table = read_kernel_table()
    plan = make_plan(read_btf(), table, modules=False)
    symbols = NamedScope(("do_signalfd4",)).find(table).symbols
    with Tracer(plan, find_headers(), symbols=symbols, limits=limits) as tracer:
        said = tracer.map_bytes
    if said["scopes"] < 100:
        pytest.skip("this kernel does not count the headers of maps and their hash tables")
    expected = {
        "outstanding": hash_bytes(limits.outstanding, 8, 72),
        "stacks": hash_bytes(limits.stacks, 8, 8 + 8 * stack_depth()),
        "totals": hash_bytes(limits.totals, 16, 48),
        "ledger_filter": 8 * limits.filter_slots,
    }
    for name, size_bytes in expected.items():
        assert said[name] == pytest.approx(size_bytes, rel=0.02), name


def test_memory_of_the_maps_is_stated(examined: tuple[int, dict[str, Any]]) -> None:
    (maps,) = [row for row in examined[1]["findings"] if row["name"] == "maps"]
    limits = Limits()
    at_least = hash_bytes(limits.outstanding, 8, 72) + hash_bytes(limits.stacks, 8, 1024)
    stated = float(maps["found"].split(" MB")[0]) * 2**20
    assert at_least < stated < 2 * at_least
    assert f"each of {limits.outstanding} outstanding allocations (--max-outst" in maps["found"]


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
