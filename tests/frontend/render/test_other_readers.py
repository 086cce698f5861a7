"""What kleak writes, read by programs that others wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from kleak.model.report import Excuse, Parent, Verdict
from kleak.render import folded, ktap, pprof
from kleak.render.renderer import Look, Material
from tests.support.saved import samples, total_bytes
from tests.support.tools import need, need_flamegraph, need_kunit

pytestmark = pytest.mark.tools

SAMPLES = samples()


def go_pprof(tmp_path: Path, sample: str, *options: str) -> str:
    path = tmp_path / "report.pb.gz"
    path.write_bytes(pprof.render(SAMPLES[sample], Look()))
    done = subprocess.run(
        [need("go"), "tool", "pprof", *options, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PPROF_TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("sample", list(SAMPLES))
def test_pprof_accepts_every_profile(tmp_path, sample):
    raw = go_pprof(tmp_path, sample, "-raw")
    assert "outstanding_objects/count outstanding_space/bytes" in raw
    samples_of_raw = re.findall(r"^\s+(\d+)\s+(\d+): [\d ]+$", raw, re.MULTILINE)
    report = SAMPLES[sample].report
    assert len(samples_of_raw) == len(report.sites)
    assert sum(int(size) for _, size in samples_of_raw) == total_bytes(report)


def test_pprof_sees_functions_lines_and_modules(tmp_path):
    top = go_pprof(tmp_path, "6.12--leaky", "-top", "-cum", "-lines", "-unit=B")
    assert re.search(r"122880B .* forget_rings buffers\.c:48$", top, re.MULTILINE)
    raw = go_pprof(tmp_path, "6.12--leaky", "-raw")
    build_id = SAMPLES["6.12--leaky"].report.target.build_id
    assert re.search(rf"leaky\.ko {build_id}", raw)


def test_pprof_filters_by_verdict(tmp_path):
    shown = go_pprof(tmp_path, "6.12--leaky", "-top", "-tagfocus=verdict=confirmed")
    assert "100%" in shown
    tags = go_pprof(tmp_path, "6.12--leaky", "-tags")
    assert "confirmed" in tags
    assert "vmalloc" in tags


@pytest.mark.parametrize("sample", [name for name in SAMPLES if SAMPLES[name].report.sites])
def test_flamegraph_pl_draws_every_stack(tmp_path, sample):
    text = folded.render(SAMPLES[sample], Look())
    done = subprocess.run(
        ["perl", need_flamegraph(), "--countname=bytes", "--minwidth=0"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ignored" not in done.stderr
    drawing = ElementTree.fromstring(done.stdout)
    titles = [one.text or "" for one in drawing.iter("{http://www.w3.org/2000/svg}title")]
    (everything,) = [title for title in titles if title.startswith("all (")]
    assert everything == f"all ({total_bytes(SAMPLES[sample].report):,} bytes, 100%)"
    # It writes round brackets for angled ones.
    plain = text.translate(str.maketrans("<>", "()"))
    functions = {name for line in plain.splitlines() for name in line.rsplit(" ", 1)[0].split(";")}
    assert functions <= {title.rsplit(" (", 1)[0] for title in titles}


# Runs the kernel's parser and tells what it made of each test.
READ_KTAP = """
import json, sys
sys.stdout, real = sys.stderr, sys.stdout
import kunit_parser
test = kunit_parser.parse_run_tests(sys.stdin.read().splitlines())
def tell(test):
    return {"name": test.name, "status": test.status.name, "log": list(test.log)}
print(json.dumps({
    "subtests": [tell(one) for one in test.subtests],
    "errors": test.counts.errors,
    "status": test.status.name,
}), file=real)
"""


def kunit(text: str) -> dict:
    directory = need_kunit()
    done = subprocess.run(
        [sys.executable, "-B", "-c", READ_KTAP],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(directory), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("sample", list(SAMPLES))
def test_the_kernels_parser_takes_every_ktap(sample):
    report = SAMPLES[sample].report
    read = kunit(str(ktap.render(SAMPLES[sample], Look(verbose=True))))
    assert read["errors"] == 0
    states = [one["status"] for one in read["subtests"]]
    assert states[0] == ("SUCCESS" if report.trust.complete else "SKIPPED")
    assert states[1:] == [
        ("FAILURE" if site.is_finding else "SKIPPED")
        if site.verdict >= Verdict.LIKELY
        else "SUCCESS"
        for site in report.sites
        if site.injected is None
    ] + error_path_states(report)
    assert (read["status"] == "FAILURE") == ("FAILURE" in states)


def error_path_states(report):
    """A failure on purpose fails where something of it leaks, or the kernel complained."""
    leaking = {
        site.injected.error_path
        for site in report.sites
        if site.injected is not None and site.verdict >= Verdict.LIKELY
    }
    paths = () if report.error_paths is None else report.error_paths.paths
    return [
        "FAILURE" if path.outcome.is_found or path.number in leaking else "SUCCESS"
        for path in paths
    ]


def test_the_kernels_parser_finds_each_diagnostic_with_its_test():
    material = SAMPLES["6.12--leaky"]
    read = kunit(str(ktap.render(material, Look())))
    for test, site in zip(read["subtests"][1:], material.report.sites, strict=True):
        assert site.frames[0].symbol in test["name"]
        logged = " ".join(test["log"])
        for item in site.evidence if site.verdict >= Verdict.LIKELY else ():
            assert f"{item.witness}: {item.says}" in logged


def test_the_kernels_parser_sees_what_does_not_count_as_skipped():
    material = SAMPLES["6.12--leaky"]
    first, second, *rest = material.report.sites
    sites = (
        first,
        replace(second, parent=Parent(first.rank, "pointers", "pointed to")),
        *(replace(one, excuse=Excuse("suppression", "suppressed by a#b:1")) for one in rest),
    )
    marked = Material(replace(material.report, sites=sites), ())
    read = kunit(str(ktap.render(marked, Look())))
    states = [one["status"] for one in read["subtests"]]
    guilty = [site.verdict >= Verdict.LIKELY for site in rest]
    assert states[:3] == ["SUCCESS", "FAILURE", "SKIPPED"]
    assert states[3:] == ["SKIPPED" if would_fail else "SUCCESS" for would_fail in guilty]
    assert True in guilty
    assert read["errors"] == 0


def test_the_kernels_parser_refuses_what_is_no_ktap():
    text = str(ktap.render(SAMPLES["6.12--leaky"], Look()))
    assert kunit(text.replace("ok 2 ", "ok 9 "))["errors"] > 0
    assert kunit("1..2\nok 1 a\n")["errors"] > 0
