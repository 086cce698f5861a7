"""The main job on real kernels: every planted leak, in exact numbers, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kleak.frames.names import base_name
from tests.support.build_modules import TOP
from tests.support.guest import Guest, GuestJob

CYCLES = 5
SOURCES = TOP / "tests" / "modules" / "planted"

JOBS = [
    GuestJob(
        "planted",
        ["kleak", "module", "{planted.ko}", "--cycles", str(CYCLES), "--json", "report.json"],
    )
]


@dataclass(frozen=True)
class Truth:
    """What one function leaks in each load. Sizes are bytes of all its objects together."""

    allocator: str
    count: int
    size_bytes: int
    requested_bytes: int | None


PAGE = 4096
TRUTH = {
    "planted_init": Truth("kmalloc", 7, 7 * 256, 7 * 200),
    "leak_kmalloc": Truth("kmalloc", 3, 3 * 128, 3 * 120),
    # SLUB keeps the free pointer of a SLAB_TYPESAFE_BY_RCU cache behind the object.
    "leak_cache": Truth("kmem_cache", 5, 5 * 112, 5 * 104),
    "leak_large": Truth("kmalloc", 3, 3 * 32768, 3 * 20000),
    "leak_some": Truth("kmalloc", 7, 7 * 64, 7 * 56),
    # "planted 0 of 13" takes 16 bytes, with two digits in front 17, of 32.
    "leak_string": Truth("kmalloc", 13, 10 * 16 + 3 * 32, 10 * 16 + 3 * 17),
    "leak_in_work": Truth("kmalloc", 5, 5 * 512, 5 * 300),
    "leak_vmalloc": Truth("vmalloc", 3, 3 * 3 * PAGE, None),
    "leak_big_vmalloc": Truth("vmalloc", 2, 2 * (3 << 20), None),
    "leak_kvmalloc": Truth("vmalloc", 2, 2 * (6 << 20), None),
    "leak_vmap": Truth("vmap", 2, 2 * PAGE, None),
}
# Makes a slab cache in each load and never destroys it. What the kernel allocates for a cache
# differs by version, so only its presence is told here.
CACHE_MAKER = "leak_slab"


@cache
def line_of(function: str) -> tuple[str, int]:
    """Where the sources say that ``function`` leaks: file name and line."""
    for path in sorted(SOURCES.glob("*.c")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if re.search(rf"/\* LEAK {function} \*/", line):
                return path.name, number
    raise AssertionError(f"no LEAK comment for {function}")


def planted_frame(site: dict[str, Any]) -> dict[str, Any]:
    """The innermost frame of the module."""
    return next(frame for frame in site["frames"] if frame["module"] == "planted")


@pytest.fixture
def report(guest: Guest) -> dict[str, Any]:
    result = guest["planted"]
    assert result.status == 1, result.stderr
    return json.loads(result.file("report.json").read_text())


@pytest.fixture
def by_function(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    functions: dict[str, list[dict[str, Any]]] = {}
    for site in report["sites"]:
        functions.setdefault(base_name(planted_frame(site)["symbol"]), []).append(site)
    return functions


@pytest.mark.parametrize("function", TRUTH)
def test_counts_and_bytes_are_exact(
    by_function: dict[str, list[dict[str, Any]]], function: str
) -> None:
    truth = TRUTH[function]
    (site,) = by_function[function]
    assert site["allocator"] == truth.allocator
    each = {"count": truth.count, "bytes": truth.size_bytes}
    assert site["per_cycle"] == [each] * CYCLES
    assert site["outstanding"] == {name: CYCLES * number for name, number in each.items()}
    requested = truth.requested_bytes
    assert site["requested_bytes"] == (None if requested is None else CYCLES * requested)


@pytest.mark.parametrize("function", TRUTH)
def test_function_file_and_line(
    by_function: dict[str, list[dict[str, Any]]], function: str
) -> None:
    (site,) = by_function[function]
    frame = planted_frame(site)
    file, line = line_of(function)
    assert frame["source"] is not None
    assert (Path(frame["source"]["file"]).name, frame["source"]["line"]) == (file, line)


@pytest.mark.parametrize("function", TRUTH)
def test_leaks_are_found(by_function: dict[str, list[dict[str, Any]]], function: str) -> None:
    (site,) = by_function[function]
    assert site["verdict"] in ("confirmed", "likely")


def test_nothing_else_is_accused(by_function: dict[str, list[dict[str, Any]]]) -> None:
    assert set(by_function) - {CACHE_MAKER} == set(TRUTH)


def test_init_text_is_named_in_every_stack(report: dict[str, Any]) -> None:
    """Everything but the work item runs below __init, which is gone when it is reported."""
    for site in report["sites"]:
        symbols = [frame["symbol"] for frame in site["frames"]]
        if "leak_in_work" not in map(base_name, filter(None, symbols)):
            assert "planted_init" in symbols


def test_no_frame_of_the_tracer_shows(report: dict[str, Any]) -> None:
    for site in report["sites"]:
        for frame in site["frames"] + site["allocator_frames"]:
            assert not re.match(r"bpf_|__bpf_|__traceiter_|kretprobe_", frame["symbol"] or "")


def test_the_result_is_complete(report: dict[str, Any]) -> None:
    assert report["trust"]["complete"], report["trust"]
    assert report["trust"]["witnesses"]["vmallocinfo"] == "used"
    assert report["cycles"] == CYCLES


def test_vmalloc_sites_are_confirmed_by_vmallocinfo(
    by_function: dict[str, list[dict[str, Any]]],
) -> None:
    for function in ("leak_vmalloc", "leak_big_vmalloc", "leak_kvmalloc"):
        (site,) = by_function[function]
        (said,) = [e for e in site["evidence"] if e["witness"] == "vmallocinfo"]
        assert said["weight"] > 0
