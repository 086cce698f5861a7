"""What kleak writes, read by programs that others wrote."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from kleak.render import folded, pprof
from kleak.render.renderer import Look
from tests.saved import samples, total_bytes
from tests.tools import need, need_flamegraph

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
