"""Reports in JSON, read back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kleak.analysis.error_paths import conclude
from kleak.analysis.judge import judge
from kleak.commands.report_file import read_report
from kleak.errors import UsageError
from kleak.model.report import Excuse, Parent
from kleak.render.report_json import document, render
from kleak.store.reader import read_session
from tests.support.samples import KERNFS, session, site
from tests.support.saved import samples, saved_files


@pytest.mark.parametrize("sample", sorted(samples().keys() - {"merged", "standing"}))
def test_what_is_read_is_what_was_written(tmp_path, sample):
    report = samples()[sample].report
    path = tmp_path / "report.json"
    path.write_text(render(report))
    assert document(read_report(path)) == document(report)


def test_marks_come_back(tmp_path):
    report = judge(session(site([3] * 5), site([2] * 5, frames=KERNFS)))
    marked = replace(
        report,
        sites=(
            replace(report.sites[0], excuse=Excuse("baseline", "known")),
            replace(report.sites[1], parent=Parent(1, "time", "said"), per_cycle=None),
        ),
    )
    path = tmp_path / "report.json"
    path.write_text(render(marked))
    assert document(read_report(path)) == document(marked)


@pytest.mark.parametrize("path", saved_files(), ids=lambda path: path.stem)
def test_a_session_is_judged(path):
    assert read_report(path) == conclude(read_session(path))


def spoiled(spoil) -> str:
    text = json.loads(render(judge(session(site([3] * 5)))))
    spoil(text)
    return json.dumps(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is neither a report in JSON nor a session: "),
        ("{", "is neither a report in JSON nor a session: "),
        ("\x00\xff", "is neither a report in JSON nor a session: "),
        ("[" * 100_000, "is neither a report in JSON nor a session: "),
        ("[]", "its schema is None, and 'kleak.report/1' is needed"),
        ('{"schema": "kleak.report/2"}', "its schema is 'kleak.report/2', and"),
        ('{"schema": "kleak.report/1"}', "is damaged: no key 'kernel'"),
        (spoiled(lambda text: text.update(sites={})), "is damaged: sites is no list"),
        (spoiled(lambda text: text.update(cycles=-1)), "is damaged: cycles is no number: -1"),
        (spoiled(lambda text: text.update(kernel=7)), "is damaged: kernel is no object: 7"),
        (spoiled(lambda text: text.update(sites=[7])), "is damaged: "),
        (
            spoiled(lambda text: text["sites"][0].update(verdict="sure")),
            "is damaged: no verdict is called 'sure'",
        ),
        (
            spoiled(lambda text: text["sites"][0]["frames"][0].update(symbol=3)),
            "is damaged: symbol is no text: 3",
        ),
        (
            spoiled(lambda text: text["sites"][0]["frames"][0]["source"].pop("line")),
            "is damaged: no key 'line'",
        ),
    ],
)
def test_what_is_no_report_gets_one_line(tmp_path, text, says):
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        read_report(path)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.json: No such file or directory"):
        read_report(tmp_path / "gone.json")
