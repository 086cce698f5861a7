import csv
import io
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from kleak.commands.report import report as command
from kleak.errors import KleakError
from kleak.model.session import Target
from kleak.render.formats import BY_NAME, RENDERERS
from kleak.store.writer import SessionWriter
from tests.support.samples import KERNFS, regions_of, session, site
from tests.support.saved import everything, saved_files

LEAKY = str(next(path for path in saved_files() if path.stem == "6.12--leaky"))
OLDER = str(next(path for path in saved_files() if path.stem == "6.1--leaky"))
PIPES = str(next(path for path in saved_files() if path.stem == "6.18--pipes"))


def report(*arguments: str) -> tuple[int, str]:
    """The exit status and what came on standard output; errors as the command line has them."""
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if isinstance(result.exception, KleakError):
        raise result.exception
    assert result.exception is None, result.exception
    return result.return_value, result.stdout


def save(path: Path, saved) -> str:
    with SessionWriter(path) as writer:
        writer.save(saved)
    return str(path)


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda one: one.name)
def test_format_by_name_and_by_extension_are_the_same(tmp_path, renderer):
    for extension in renderer.extensions:
        status, _ = report(LEAKY, "-o", str(tmp_path / f"named{extension}"))
        assert status == 1
    report(LEAKY, "--format", renderer.name, "-o", str(tmp_path / "chosen.bin"))
    written = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(written) == 1
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_extension_without_a_format(tmp_path):
    with pytest.raises(KleakError, match="no format has this extension; give one with --format"):
        report(LEAKY, "-o", str(tmp_path / "report.docx"))


@pytest.mark.parametrize("name", [one.name for one in RENDERERS if one.binary])
def test_binary_never_goes_to_a_terminal(name):
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "kleak", "report", LEAKY, "--format", name],
        stdout=slave,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    os.close(slave)
    os.close(master)
    assert done.returncode == 2
    assert re.fullmatch(
        rf"kleak: {name} is binary and no terminal can show it: give a file, such as -o \S+\n",
        done.stderr,
    )


def test_binary_goes_into_a_pipe():
    done = subprocess.run(
        [sys.executable, "-m", "kleak", "report", LEAKY, "--format", "pprof"],
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(b"\x1f\x8b")


@pytest.mark.skipif(os.geteuid() != 0, reason="everything here runs without root anyway")
def test_no_root_is_needed():
    with tempfile.TemporaryDirectory() as directory:
        path = save(Path(directory) / "session.kleak", everything())
        os.chmod(directory, 0o755)
        os.chown(path, 65534, 65534)
        script = (
            "import os, sys; from kleak.cli import main; os.setgid(65534); os.setuid(65534);"
            f"sys.argv = ['kleak', 'report', {path!r}]; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
    assert "module leaky" in done.stdout, done.stderr


# --- selection


def rows(*arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(report(*arguments, "--format", "csv")[1])))


def test_top_and_sort():
    everything_shown = rows(LEAKY)
    assert len(everything_shown) > 2
    assert rows(LEAKY, "--top", "2") == everything_shown[:2]
    by_count = [int(row["count"]) for row in rows(LEAKY, "--sort", "count")]
    assert by_count == sorted(by_count, reverse=True)
    assert by_count != [int(row["count"]) for row in everything_shown]


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda one: one.name)
def test_top_is_heeded_by_every_format(tmp_path, renderer):
    if renderer.name == "html":  # its note of what is left out makes up for the rest
        return
    sizes = []
    for options in ((), ("--top", "1")):
        path = tmp_path / f"{len(sizes)}{renderer.extensions[0]}"
        report(LEAKY, *options, "-o", str(path))
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0]


def last(text: str, count: int) -> list[str]:
    return [block for block in text.split("\n\n") if block.strip()][-count:]


def test_top_changes_no_conclusion():
    """The one shown is the surest; the one that holds most is not."""
    for options in ((), ("--sort", "count"), ("--group-by", "function")):
        blocks = 1 if "--group-by" in options else 2
        status, text = report(LEAKY, *options)
        cut, shown = report(LEAKY, *options, "--top", "1")
        assert cut == status == 1
        assert last(shown, blocks) == last(text, blocks)
        noun = "groups" if "--group-by" in options else "sites"
        assert f"note: 3 more {noun} are not shown" in shown
        assert "125 kB from 4 places" in shown


def test_top_hides_no_failure(tmp_path):
    """Whatever is not shown decides as before, in every format that concludes."""
    saved = session(site([3] * 3), site([5, 0, 9], frames=KERNFS, object_bytes=4096))
    path = save(tmp_path / "two.kleak", saved)
    options = ("--sort", "bytes", "--top", "1")
    assert [row["verdict"] for row in rows(path, *options)] == ["possible"]
    assert report(path, *options)[0] == report(path)[0] == 1
    _, ktap = report(path, *options, "--format", "ktap")
    assert ktap.splitlines()[1] == "1..3"
    assert "not ok 3 leaky: 1 more sites, not shown: 1 would fail" in ktap
    assert "pass:2 fail:1" in ktap
    assert "::warning" in report(path, *options, "--format", "github")[1]
    for name in ("markdown", "html"):
        shown, whole = (report(path, *more, "--format", name)[1] for more in (options, ()))
        headline = r"^# .*$" if name == "markdown" else r"<p class=.verdict.*$"
        assert re.findall(headline, shown, re.M) == re.findall(headline, whole, re.M)


def test_top_in_json_is_told_and_no_baseline(tmp_path):
    whole = json.loads(report(LEAKY, "--format", "json")[1])
    cut = json.loads(report(LEAKY, "--format", "json", "--top", "1")[1])
    assert cut["totals"] == whole["totals"]
    assert cut["sites"] == whole["sites"][:1]
    assert cut["not_shown"] == {"sites": 3, "groups": 0}
    assert "not_shown" not in whole
    grouped = ("--group-by", "function", "--top", "1", "--format", "json")
    assert json.loads(report(LEAKY, *grouped)[1])["not_shown"] == {"sites": 3, "groups": 3}
    (tmp_path / "cut.json").write_text(json.dumps(cut))
    with pytest.raises(KleakError, match="lacks sites, which --top left out"):
        report(LEAKY, "--baseline", str(tmp_path / "cut.json"))


def test_group_by():
    found = {row["function"]: row for row in rows(LEAKY, "--group-by", "function")}
    assert found["forget_rings [leaky]"]["count"] == "10"
    status, text = report(LEAKY, "--group-by", "process")
    assert "insmod " in text
    assert status == 1


@pytest.mark.parametrize("name", [one.name for one in RENDERERS if not one.groups])
def test_group_by_is_refused_where_it_would_do_nothing(tmp_path, name):
    with pytest.raises(KleakError, match=f"--group-by needs one of .*: {name} has stacks"):
        report(LEAKY, "--group-by", "module", "--format", name, "-o", str(tmp_path / "x"))


def test_group_by_process_cannot_be_redacted():
    with pytest.raises(KleakError, match="needs what --redact leaves out"):
        report(LEAKY, "--group-by", "process", "--redact")


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda one: one.name)
def test_redact_leaves_nothing_private_in_any_format(tmp_path, renderer):
    area = site([2] * 5, allocator="vmalloc", object_bytes=16384, sampled=4)
    made = session(area, site([3] * 5, sampled=3), regions=regions_of(area))
    made = replace(
        made,
        target=Target("module", "leaky", "/home/alice/leaky.ko"),
        circumstances=replace(everything().circumstances, host="alices-machine"),
        trust=replace(made.trust, notes=("of /home/alice/leaky.ko",)),
    )
    directory = tmp_path / "home-of-alice"
    directory.mkdir()
    path = save(directory / "session.kleak", made)
    output = tmp_path / f"report{renderer.extensions[0]}"
    plain = tmp_path / f"plain{renderer.extensions[0]}"
    assert report(path, "--verbose", "--redact", "-o", str(output))[0] == 1
    report(path, "--verbose", "-o", str(plain))
    text = output.read_bytes()
    assert b"alice" not in text
    for one in made.sites:
        for kept in one.kept:
            assert f"{kept.address:x}".encode() not in text
    if renderer.name in ("html", "markdown", "parquet", "json"):
        assert b"alice" in plain.read_bytes()


# --- several sessions


def test_sessions_of_two_kernels_are_one_report():
    status, text = report(LEAKY, OLDER, "--format", "json")
    found = json.loads(text)
    assert status == 1
    assert [one["name"] for one in found["sessions"]] == sorted(
        [LEAKY, OLDER], key=lambda name: started(name)
    )
    functions = [one["frames"][0]["symbol"].partition(".")[0] for one in found["sites"]]
    leaks = {"forget_rings", "lose_sessions", "forget_buffers", "leaky_init"}
    assert leaks <= set(functions)
    for name, one in zip(functions, found["sites"], strict=True):
        if name in leaks:
            assert len(one["sightings"]) == 2
            assert one["outstanding"]["count"] == sum(
                seen["outstanding"]["count"] for seen in one["sightings"]
            )


def started(path: str) -> float:
    (one,) = [
        one
        for one in json.loads(report(LEAKY, OLDER, "--format", "json")[1])["sessions"]
        if one["name"] == path
    ]
    return float(one["started_at"])


def test_sessions_of_different_targets():
    with pytest.raises(KleakError, match="only sessions of the same target can be merged"):
        report(LEAKY, PIPES)


def test_a_session_named_twice():
    with pytest.raises(KleakError, match="named twice"):
        report(LEAKY, os.path.relpath(LEAKY))


# --- exit status


def test_exit_status(tmp_path):
    clean = save(tmp_path / "clean.kleak", session(cycles=5))
    weak = save(tmp_path / "weak.kleak", session(site([1], frames=KERNFS)))
    lossy = save(tmp_path / "lossy.kleak", session(cycles=5, lost={"x": 1}))
    assert report(clean)[0] == 0
    assert report(LEAKY)[0] == 1
    assert report(weak)[0] == 0
    assert report(weak, "--fail-on", "retained")[0] == 1
    assert report(lossy)[0] == 0
    assert report(lossy, "--strict")[0] == 5


def test_what_is_no_session_is_one_line(tmp_path):
    path = tmp_path / "x.kleak"
    path.write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "kleak", "report", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, f"kleak: {path} is no kleak session\n")


def test_files_whose_names_are_no_text(tmp_path):
    """Such a name goes into no table; bytes that are no UTF-8 are written as escapes."""
    sample = saved_files()[0]
    names = [tmp_path / os.fsdecode(name) for name in (b"bad\xff.kleak", b"other.kleak")]
    for name in names:
        shutil.copy(sample, name)
    rules = tmp_path / os.fsdecode(b"rules\xff")
    rules.write_text("leak:forget_rings\n")
    for renderer in BY_NAME:
        written = tmp_path / "written"
        done = subprocess.run(
            [sys.executable, "-m", "kleak", "report", *names, "--format", renderer,
             "-o", written, "--suppressions", rules, "--baseline", names[0]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), renderer
        assert rb"\udcff" not in written.read_bytes()
