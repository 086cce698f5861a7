"""Suppressions, baselines, KTAP, annotations and diff, as a CI job calls them."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
from click.testing import CliRunner

from kleak.commands.analyze import analyze
from kleak.commands.diff import diff
from kleak.commands.options.excuses import Excuses
from kleak.commands.report import report
from kleak.errors import UsageError
from tests.frontend.commands.test_report import save
from tests.support.paths import TESTS
from tests.support.samples import KERNFS, session, site
from tests.support.saved import saved_files, standing

DATA = TESTS / "data"
TAR = str(DATA / "snapshots/6.12--vmalloc-kmalloc-and-page-leak.tar.gz")
DIFF_SCHEMA = json.loads((DATA.parents[1] / "docs" / "diff-1.schema.json").read_text())
REPORT_SCHEMA = json.loads((DATA.parents[1] / "docs" / "report-1.schema.json").read_text())
LEAKY = str(next(path for path in saved_files() if path.stem == "6.12--leaky"))
OLDER = str(next(path for path in saved_files() if path.stem == "6.1--leaky"))


def call(command, *arguments):
    result = CliRunner().invoke(command, [str(one) for one in arguments], standalone_mode=False)
    if isinstance(result.exception, UsageError):
        raise result.exception
    assert result.exception is None, result.exception
    return result


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def as_json(tmp_path, name, saved):
    path = tmp_path / name
    call(report, save(tmp_path / f"{name}.kleak", saved), "--format", "json", "-o", path)
    return path


def test_suppressed_sites_stay_in_the_report_and_do_not_count(tmp_path):
    rules = written(tmp_path, "one.supp", "leak:forget_rings\nleak:not_there\n")
    others = written(tmp_path, "two.supp", "# the rest\nleak:^leaky$\n")
    partly = call(report, LEAKY, "--suppressions", rules)
    assert partly.return_value == 1
    assert "does not count: suppressed by" in partly.stdout
    done = call(report, LEAKY, "--suppressions", rules, "--suppressions", others)
    assert done.return_value == 0
    assert "forget_rings+0x1f [leaky] buffers.c:48" in done.stdout
    unwrapped = " ".join(done.stdout.split())
    assert "1 10 120 kB forget_rings" in unwrapped
    assert f"suppression not used: {rules}:2: leak:not_there" in unwrapped
    assert "known or suppressed" in unwrapped


def test_a_suppressed_report_in_json(tmp_path):
    rules = written(tmp_path, "one.supp", "leak:forget_rings\n")
    text = call(report, LEAKY, "--suppressions", rules, "--format", "json").stdout
    document = json.loads(text)
    jsonschema.Draft202012Validator(REPORT_SCHEMA).validate(document)
    (excused,) = [one for one in document["sites"] if "excuse" in one]
    assert excused["frames"][0]["symbol"] == "forget_rings"
    assert document["suppressions"][0]["sites"] == 1
    totals = document["totals"]["confirmed"]
    assert totals["findings"] == totals["sites"] - 1


def test_a_suppressed_site_is_excused_in_the_table_of_many_sessions(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rules = written(tmp_path, "one.supp", "leak:forget_rings\n")
    output = tmp_path / "sites.parquet"
    call(report, LEAKY, OLDER, "--suppressions", rules, "-o", output)
    rows = parquet.read_table(output).to_pylist()
    excused = [row["function"] for row in rows if row["excuse_by"] == "suppression"]
    assert excused == ["forget_rings", "forget_rings"]
    assert len(rows) > len(excused)


def test_redacted_reports_have_no_directories_of_excuses(tmp_path):
    directory = tmp_path / "home-of-alice"
    directory.mkdir()
    rules = written(directory, "one.supp", "leak:forget_rings\nleak:not_there\n")
    before = as_json(directory, "before.json", session(site([3] * 5)))
    arguments = (LEAKY, "--suppressions", rules, "--baseline", before, "--format", "json")
    assert "alice" in call(report, *arguments).stdout
    redacted = call(report, *arguments, "--redact").stdout
    assert "alice" not in redacted
    assert "suppressed by one.supp:1" in redacted


def test_a_bad_line_is_told_before_any_work(tmp_path):
    rules = written(tmp_path, "one.supp", "leak:fine\nlaek:typo\n")
    for command, argument in ((report, LEAKY), (analyze, TAR)):
        with pytest.raises(UsageError, match=r"one\.supp:2: no rule: 'laek:typo'"):
            call(command, argument, "--suppressions", rules)


@pytest.mark.parametrize("fail_on", ["confirmed", "likely", "possible", "retained"])
def test_nothing_is_new_against_itself(tmp_path, fail_on):
    earlier = tmp_path / "earlier.json"
    assert call(report, LEAKY, "-o", earlier).return_value == 1
    for known in (earlier, LEAKY):
        assert call(report, LEAKY, "--baseline", known, "--fail-on", fail_on).return_value == 0


def test_a_baseline_of_another_kernel_knows_the_same_sites():
    found = call(report, LEAKY, "--baseline", OLDER)
    assert found.return_value == 0
    assert "4 known, 0 worse, 0 new, 0 no longer there" in " ".join(found.stdout.split())


def test_only_what_is_worse_than_the_baseline_counts(tmp_path):
    earlier = as_json(
        tmp_path, "earlier.json", session(site([3] * 5), site([1] * 5, frames=KERNFS))
    )
    same = save(tmp_path / "same.kleak", session(site([3] * 7)))
    worse = save(tmp_path / "worse.kleak", session(site([5] * 7)))
    assert call(report, same, "--baseline", earlier).return_value == 0
    found = call(report, worse, "--baseline", earlier)
    assert found.return_value == 1
    assert "known, but grew: 5 objects a cycle, 3 in" in found.stdout


def test_what_is_new_counts_though_it_hangs_on_what_is_known():
    now = standing().report
    record = next(site for site in now.sites if site.frames[0].symbol == "record")
    name = next(site for site in now.sites if site.frames[0].symbol == "name")
    assert name.parent is not None
    assert name.parent.rank == record.rank
    excuses = Excuses(baseline=replace(now, sites=(record,)), baseline_name="before.json")
    found = {site.frames[0].symbol: site for site in excuses.apply(now).sites}
    assert found["record"].excuse is not None
    assert found["name"].is_finding
    known = Excuses(baseline=now, baseline_name="before.json").apply(now)
    assert not [site for site in known.sites if site.is_finding]


def test_analyze_has_the_same_options(tmp_path):
    ktap, earlier = tmp_path / "report.ktap", tmp_path / "report.json"
    first = call(analyze, TAR, "--ktap", ktap, "--json", earlier, "--annotate")
    assert first.return_value == 1
    assert "\nnot ok 2 " in ktap.read_text()
    assert "\n::error " in first.stdout
    assert call(analyze, TAR, "--baseline", earlier).return_value == 0


def test_one_document_has_standard_output_to_itself():
    found = call(analyze, TAR, "--ktap", "-", "--annotate")
    assert found.stdout.startswith("KTAP version 1\n1..")
    assert "::error " not in found.stdout
    assert "::error " in found.stderr
    with pytest.raises(UsageError, match="one of them needs a file"):
        call(analyze, TAR, "--ktap", "-", "--json", "-")


def test_ktap_cannot_be_written_is_told_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="no directory"):
        call(analyze, TAR, "--ktap", tmp_path / "none" / "report.ktap")


def test_diff_of_a_report_and_itself():
    found = call(diff, LEAKY, LEAKY)
    assert found.return_value == 0
    assert found.stdout.endswith("0 appeared, 0 grew, 0 shrank, 0 went, 4 same\n"), found.stdout


def test_diff_says_what_changed(tmp_path):
    before = as_json(tmp_path, "a.json", session(site([3] * 5), site([2] * 5, frames=KERNFS)))
    after = save(tmp_path / "b.kleak", session(site([5] * 5)))
    found = call(diff, before, after)
    assert found.return_value == 1
    lines = found.stdout.splitlines()
    grew, went = (next(x for x in lines if x.startswith(word)) for word in ("grew", "went"))
    assert grew.split()[:4] == ["grew", "confirmed", "kmalloc", "15"]
    assert "15 -> 25" in grew
    assert "3 -> 5" in grew
    place = "leak_it [leaky] <- leaky_init [leaky] <- do_one_initcall leaky.c:12"
    assert place in " ".join(found.stdout.replace(went, "").split())
    assert went.startswith("went ")
    assert call(diff, after, before).return_value == 0
    assert call(diff, before, after, "--fail-on", "confirmed").return_value == 1


def test_diff_in_json(tmp_path):
    before = as_json(tmp_path, "a.json", session(site([3] * 5), site([2] * 5, frames=KERNFS)))
    after = save(tmp_path / "b.kleak", session(site([5] * 5)))
    found = call(diff, before, after, "--json", "-")
    document = json.loads(found.stdout)
    jsonschema.Draft202012Validator.check_schema(DIFF_SCHEMA)
    jsonschema.Draft202012Validator(DIFF_SCHEMA).validate(document)
    assert document["totals"] == {"appeared": 0, "grew": 1, "shrank": 0, "went": 1, "same": 0}
    grew = document["changes"][0]
    assert grew["before"]["per_cycle"] == {"count": 3, "bytes": 384}
    assert grew["after"]["per_cycle"] == {"count": 5, "bytes": 640}
    assert document["changes"][1]["after"] is None
    assert "grew" in found.stderr


def test_what_diff_counts_was_not_suppressed(tmp_path):
    before = as_json(tmp_path, "a.json", session(cycles=5))
    after = tmp_path / "after.json"
    rules = written(tmp_path, "one.supp", "leak:leak_it\n")
    now = save(tmp_path / "b.kleak", session(site([5] * 5)))
    call(report, now, "--suppressions", rules, "-o", after)
    found = call(diff, before, after)
    assert found.return_value == 0
    assert "appeared  confirmed (excused)" in found.stdout


def test_diff_strict(tmp_path):
    whole = save(tmp_path / "a.kleak", session(site([3] * 5)))
    lossy = save(tmp_path / "b.kleak", session(site([3] * 5), lost={"missed_kfree_events": 7}))
    assert call(diff, whole, whole, "--strict").return_value == 0
    assert call(diff, whole, lossy, "--strict").return_value == 5
    assert "INCOMPLETE" in call(diff, whole, lossy).stdout
