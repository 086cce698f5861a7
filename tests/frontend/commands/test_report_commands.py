"""The commands analyze, triage, explain and collect, as a user calls them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile

import jsonschema
import pytest
from click.testing import CliRunner

from kleak.commands.analyze import analyze
from kleak.commands.collect import collect
from kleak.commands.explain import explain
from kleak.commands.triage import triage
from kleak.errors import UsageError
from kleak.parsers.meminfo import _ATTRIBUTES
from kleak.snapshots import collect as collecting
from kleak.snapshots.explanations import EXPLANATIONS
from tests.support.paths import TESTS

DATA = TESTS / "data"
SCHEMA = json.loads((DATA.parents[1] / "docs" / "report-1.schema.json").read_text())
TAR = str(DATA / "snapshots/6.12--vmalloc-kmalloc-and-page-leak.tar.gz")


def call(command, *arguments):
    return CliRunner().invoke(command, arguments, standalone_mode=False)


def test_analyze_prints_the_report_and_the_classes():
    result = call(analyze, TAR)
    assert result.exception is None
    assert result.return_value == 1
    assert "classic_leak_vmalloc+0xf [classic]" in result.output
    assert "Linux 6.12.117+deb12-amd64" in result.output
    assert "meminfo: MemFree fell by" in result.output
    [vmalloc] = [line for line in result.output.splitlines() if line.startswith("VmallocUsed")]
    assert vmalloc.endswith("grows")


def test_analyze_writes_the_same_document_as_the_tracer():
    result = call(analyze, TAR, "--json", "-")
    document = json.loads(result.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert any(site["frames"] == [] for site in document["sites"])
    assert document["schema"] == "kleak.report/1"
    assert document["target"]["kind"] == "snapshots"
    assert document["cycles"] == 5
    assert document["sites"][0]["outstanding"]["count"] == 68
    assert any(note.startswith("meminfo:") for note in document["trust"]["notes"])
    assert "VmallocUsed" in result.stderr


def test_analyze_decides_by_fail_on(tmp_path):
    assert call(analyze, TAR, "--fail-on", "possible").return_value == 1
    before = DATA / "vmallocinfo/6.12--before.txt"
    same = shutil.copy(before, tmp_path / "same")
    assert call(analyze, str(before), str(same)).return_value == 0


def test_one_snapshot_is_not_enough_but_one_kmemleak_is():
    with pytest.raises(UsageError, match="two or more"):
        raise call(analyze, str(DATA / "vmallocinfo/6.12--before.txt")).exception
    result = call(analyze, str(DATA / "kmemleak/6.12--documented-format.txt"))
    assert result.exception is None
    assert "lx_leak+0x1f [leakx]" in result.output


def test_damage_with_strict_is_incomplete(tmp_path):
    text = (DATA / "vmallocinfo/6.12--before.txt").read_text()
    (tmp_path / "a").write_text(text)
    (tmp_path / "b").write_text(text.replace("pages=", "pages=x", 1))
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert call(analyze, *paths).return_value == 0
    assert call(analyze, *paths, "--strict").return_value == 5


def test_triage_of_files():
    result = call(triage, TAR)
    assert result.exception is None
    assert result.return_value == 0
    assert "ABNORMAL vmallocinfo: 68 regions" in result.output
    assert "SUnreclaim" in result.output
    with pytest.raises(UsageError, match="running machine"):
        raise call(triage, TAR, "--scan").exception


def test_triage_of_what_has_no_size():
    """Files of /proc say that they are empty; a pipe can be read once."""
    result = call(triage, "/proc/meminfo")
    assert result.exception is None
    assert "MemFree" in result.output
    for command in (["cat", "/proc/meminfo"], ["gzip", "-c", "/proc/meminfo"]):
        reader, writer = os.pipe()
        subprocess.run(command, stdout=writer, check=True)
        os.close(writer)
        result = call(triage, f"/dev/fd/{reader}")
        os.close(reader)
        assert result.exception is None
        assert "MemFree" in result.output


def test_snapshots_come_in_their_order_and_once(tmp_path):
    with tarfile.open(TAR) as archive:
        archive.extractall(tmp_path)
    shots = sorted(str(path.parent) for path in tmp_path.rglob("manifest"))
    assert call(analyze, *shots).exception is None
    with pytest.raises(UsageError, match=r"snapshot 001 was taken before .*oldest first"):
        raise call(analyze, shots[2], shots[0]).exception
    with pytest.raises(UsageError, match="is named twice"):
        raise call(analyze, shots[0], shots[0]).exception
    shutil.copytree(shots[0], tmp_path / "again")
    with pytest.raises(UsageError, match="snapshots 001 and again are the same one"):
        raise call(analyze, shots[0], str(tmp_path / "again")).exception


@pytest.mark.parametrize("command", [triage, collect])
def test_who_asks_for_what_is_refused_is_told(tmp_path, monkeypatch, command):
    def refuse(*_, **__):
        return "refused: Permission denied"

    monkeypatch.setattr(collecting, "_write", refuse)
    monkeypatch.setattr(collecting.os, "sync", lambda: None)
    result = call(command, "--drop-caches", *([str(tmp_path)] if command is collect else []))
    assert result.exception is None
    assert "kleak: caches were not dropped: Permission denied\n" in result.stderr


def test_collect_prints_its_script_and_nothing_else():
    result = call(collect, "--script")
    assert result.output.startswith("#!/bin/sh\n")
    with pytest.raises(UsageError, match="nothing else"):
        raise call(collect, "--script", "x").exception
    with pytest.raises(UsageError, match="Give a directory"):
        raise call(collect).exception


@pytest.mark.parametrize("name", sorted(EXPLANATIONS))
def test_every_report_is_explained(name):
    result = call(explain, name)
    assert result.exception is None
    for field in EXPLANATIONS[name].fields:
        assert field.name in result.output
        assert field.name in call(explain, name, field.name).output


def test_explain_lists_and_refuses():
    assert "meminfo" in call(explain).output
    with pytest.raises(UsageError, match="no report x"):
        raise call(explain, "x").exception
    with pytest.raises(UsageError, match="has no field nope"):
        raise call(explain, "meminfo", "nope").exception


def test_the_fields_that_are_explained_are_the_kernels():
    names = {
        name.strip()
        for field in EXPLANATIONS["meminfo"].fields
        for name in field.name.split(",")
        if not field.name.startswith("(")
    }
    assert names - set(_ATTRIBUTES) <= {"Bounce", "WritebackTmp"}
