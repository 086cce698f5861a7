"""Annotations as the runner of GitHub Actions reads them (actions/runner, ActionCommand.cs)."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from kleak.analysis.judge import judge
from kleak.model.report import Excuse, Parent, Verdict
from kleak.model.session import Frame, Source
from kleak.render.checkout import locator
from kleak.render.github import render
from tests.support.samples import KERNFS, LEAK, session, site
from tests.support.saved import samples

SAMPLES = samples()
COMMAND = re.compile(r"::(?P<command>[a-z]+) (?P<properties>[^:]*)::(?P<message>.*)")


def read(text):
    """Commands as the runner splits and unescapes them."""
    found = []
    for line in text.splitlines():
        match = COMMAND.fullmatch(line)
        assert match, line
        properties = {}
        for one in match["properties"].split(","):
            name, _, value = one.partition("=")
            for escape, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ",")):
                value = value.replace(escape, char)
            properties[name] = value.replace("%25", "%")
        found.append((match["command"], properties, match["message"].replace("%25", "%")))
    return found


def annotations(report, *, fail_on=Verdict.LIKELY, locate=str):
    return read(render(report, fail_on=fail_on, locate=locate))


def test_an_error_at_its_line():
    report = judge(session(site([3] * 5)))
    assert render(report, fail_on=Verdict.LIKELY, locate=lambda name: f"drivers/{name}") == (
        "::error file=drivers/leaky.c,line=12,title=kleak%3A leaky%3A confirmed leak::"
        "leak_it+0x1c [leaky] leaky.c:12: 15 objects, 1.9 kB, not freed after 5 cycles\n"
    )


def test_every_name_comes_back_as_it_was():
    bad = Source("100%25,a:b%2Cc.c", 7)
    frames = (LEAK[0], Frame("leaky", "f", 1, bad))
    ((command, properties, message),) = annotations(judge(session(site([3] * 5, frames=frames))))
    assert command == "error"
    assert properties["file"] == "100%25,a:b%2Cc.c"
    assert properties["line"] == "7"
    assert message.startswith("f+0x1 [leaky] 100%25,a:b%2Cc.c:7: 15 objects")


@pytest.mark.parametrize("sample", list(SAMPLES))
def test_an_annotation_for_each_finding(sample):
    report = SAMPLES[sample].report
    found = annotations(report)
    errors = [properties for command, properties, _ in found if command == "error"]
    assert len(errors) == sum(
        one.verdict >= Verdict.LIKELY and one.is_finding for one in report.sites
    )
    assert [command for command, _, _ in found].count("warning") == (not report.trust.complete)


def test_only_findings_that_count():
    report = judge(session(site([3] * 5), site([2] * 5, frames=KERNFS)))
    assert len(annotations(report, fail_on=Verdict.RETAINED)) == 2
    for mark in ({"excuse": Excuse("baseline", "known")}, {"parent": Parent(2, "time", "said")}):
        marked = replace(report, sites=(replace(report.sites[0], **mark), report.sites[1]))
        assert len(annotations(marked, fail_on=Verdict.RETAINED)) == 1


def test_a_source_is_found_in_the_repository(tmp_path, monkeypatch):
    (tmp_path / "drivers" / "leaky").mkdir(parents=True)
    (tmp_path / "drivers" / "leaky" / "leaky.c").touch()
    (tmp_path / "drivers" / "main.c").touch()
    monkeypatch.chdir(tmp_path / "drivers")
    beside = tmp_path / "drivers" / "leaky"
    workspace = {"GITHUB_WORKSPACE": str(tmp_path)}
    locate = locator([beside], workspace)
    assert locate("leaky.c") == "drivers/leaky/leaky.c"
    assert locate("main.c") == "drivers/main.c"
    assert locate(str(beside / "leaky.c")) == "drivers/leaky/leaky.c"
    assert locate("gone.c") == "gone.c"
    assert locate("/etc/passwd") == "/etc/passwd"
    assert locator([beside], {})("leaky.c") == "leaky/leaky.c"
    (tmp_path / ".git").mkdir()
    assert locator([beside], {})("leaky.c") == "drivers/leaky/leaky.c"
