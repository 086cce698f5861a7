"""Every format over every session: captured ones of each kernel and schema, and nasty ones."""

import csv
import gzip
import io
import json
import re
from dataclasses import replace
from functools import cache

import jsonschema
import pytest

from kleak.analysis.selection import GROUPINGS, group
from kleak.model.report import Verdict
from kleak.model.session import Circumstances, Target
from kleak.render.formats import BY_NAME, RENDERERS, for_file
from kleak.render.profile_proto import profile_class
from kleak.render.renderer import Look, Material
from tests.frontend.render.test_report_json import SCHEMA
from tests.support import samples as build
from tests.support.saved import HOSTILE, material, samples, total_bytes

SAMPLES = samples()
VERDICTS = sorted(Verdict)


@cache
def shown(name: str, sample: str, *, verbose: bool = False) -> str | bytes:
    return BY_NAME[name].render(SAMPLES[sample], Look(verbose=verbose))


def every_sample(test):
    return pytest.mark.parametrize("sample", list(SAMPLES))(test)


@every_sample
@pytest.mark.parametrize("name", list(BY_NAME))
@pytest.mark.parametrize("verbose", [False, True])
def test_every_renderer_over_every_session(name, sample, verbose):
    renderer = BY_NAME[name]
    result = shown(name, sample, verbose=verbose)
    if renderer.binary:
        assert isinstance(result, bytes)
        assert result
        return
    assert isinstance(result, str)
    assert result.endswith("\n") or (
        name in ("folded", "github") and not SAMPLES[sample].report.sites
    )
    for char in result:
        assert char.isprintable() or char == "\n", f"{name} lets {char!r} through"
    assert result == renderer.render(SAMPLES[sample], Look(verbose=verbose))


@pytest.mark.parametrize("name", [one.name for one in RENDERERS if one.groups])
@pytest.mark.parametrize("grouping", GROUPINGS)
@every_sample
def test_every_grouping_in_every_format_that_has_groups(name, grouping, sample):
    material = SAMPLES[sample]
    sessions = [capture.session for capture in material.captures]
    report = group(material.report, grouping, sessions)
    text = str(BY_NAME[name].render(Material(report, material.captures), Look()))
    if grouping != "site":
        assert grouping in text
        assert len(report.groups) == len({one.key for one in report.groups})


# --- what only one format has to show


@every_sample
def test_json_is_what_its_schema_promises(sample):
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(shown("json", sample)))


def test_merged_and_grouped_json_is_too():
    material = SAMPLES["merged"]
    report = group(material.report, "function", [])
    text = BY_NAME["json"].render(Material(report, material.captures), Look())
    document = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert len(document["sessions"]) == len(material.captures) == 2
    assert document["sites"][0]["sightings"]
    assert document["groups"][0]["outstanding"]["bytes"] > 0


@every_sample
def test_csv_has_a_row_a_site(sample):
    rows = list(csv.DictReader(io.StringIO(shown("csv", sample))))
    report = SAMPLES[sample].report
    assert [int(row["rank"]) for row in rows] == [site.rank for site in report.sites]
    assert sum(int(row["bytes"]) for row in rows) == total_bytes(report)
    for row in rows:
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@"))


@every_sample
def test_folded_stacks_add_up(sample):
    lines = str(shown("folded", sample)).splitlines()
    report = SAMPLES[sample].report
    assert sum(int(line.rsplit(" ", 1)[1]) for line in lines) == total_bytes(report)
    depths = {len(site.frames) + len(site.allocator_frames) for site in report.sites}
    assert {line.count(";") + 1 for line in lines} == depths


def test_folded_stacks_have_the_outermost_function_first():
    (line,) = [text for text in shown("folded", "6.12--leaky").splitlines() if "rings" in text]
    assert line == (
        "entry_SYSCALL_64_after_hwframe;do_syscall_64;__x64_sys_finit_module;"
        "idempotent_init_module;init_module_from_file;do_init_module;do_one_initcall;"
        "buffers_create [leaky];forget_rings [leaky];__vmalloc_node_noprof;"
        "__vmalloc_node_range_noprof;__get_vm_area_node;alloc_vmap_area 122880"
    )


@every_sample
def test_pprof_reads_back(sample):
    profile = profile_class()()
    profile.ParseFromString(gzip.decompress(shown("pprof", sample)))
    report = SAMPLES[sample].report
    text = list(profile.string_table)
    assert text[0] == ""
    assert [(text[kind.type], text[kind.unit]) for kind in profile.sample_type] == [
        ("outstanding_objects", "count"),
        ("outstanding_space", "bytes"),
    ]
    assert sum(one.value[1] for one in profile.sample) == total_bytes(report)
    locations = {one.id: one for one in profile.location}
    functions = {one.id: one for one in profile.function}
    mappings = {one.id: one for one in profile.mapping}
    assert 0 not in locations
    for taken, site in zip(profile.sample, report.sites, strict=True):
        stack = (*site.allocator_frames, *site.frames)
        assert len(taken.location_id) == len(stack)
        for number, frame in zip(taken.location_id, stack, strict=True):
            location = locations[number]
            (line,) = location.line
            assert line.line == (frame.source.line if frame.source else 0)
            assert functions[line.function_id].id
            assert (mappings[location.mapping_id].filename == mappings[1].filename) == (
                frame.module is None
            )


def test_pprof_has_the_build_ids_of_kernel_and_module():
    profile = profile_class()()
    profile.ParseFromString(gzip.decompress(shown("pprof", "6.12--leaky")))
    text = profile.string_table
    material = SAMPLES["6.12--leaky"]
    assert {text[one.filename]: text[one.build_id] for one in profile.mapping} == {
        "vmlinux": material.report.kernel.build_id,
        "leaky.ko": material.report.target.build_id,
    }
    assert re.fullmatch("[0-9a-f]{40}", str(material.report.kernel.build_id))


@every_sample
def test_speedscope_has_the_structure_of_its_format(sample):
    document = json.loads(shown("speedscope", sample))
    report = SAMPLES[sample].report
    frames = document["shared"]["frames"]
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert all(isinstance(frame["name"], str) for frame in frames)
    assert len({json.dumps(frame) for frame in frames}) == len(frames)
    by_bytes, by_count = document["profiles"]
    for profile in (by_bytes, by_count):
        assert profile["type"] == "sampled"
        assert profile["unit"] in ("bytes", "none")
        assert len(profile["samples"]) == len(profile["weights"]) == len(report.sites)
        assert profile["endValue"] - profile["startValue"] == sum(profile["weights"])
        for stack in profile["samples"]:
            assert all(0 <= number < len(frames) for number in stack)
    assert by_bytes["endValue"] == total_bytes(report)
    for stack, site in zip(by_bytes["samples"], report.sites, strict=True):
        # Outermost first.
        first = frames[stack[-1 - len(site.allocator_frames)]]
        assert first.get("line") == (site.frames[0].source.line if site.frames[0].source else None)


@every_sample
def test_ktap_is_numbered_and_its_plan_holds(sample):
    lines = str(shown("ktap", sample)).splitlines()
    report = SAMPLES[sample].report
    assert lines[0] == "KTAP version 1"
    paths = () if report.error_paths is None else report.error_paths.paths
    sites = [site for site in report.sites if site.injected is None]
    assert lines[1] == f"1..{1 + len(sites) + len(paths)}"
    results = [line for line in lines[2:] if not line.startswith("#")]
    for number, line in enumerate(results, start=1):
        assert re.match(rf"(?:not )?ok {number} \S", line), line
    assert len(results) == 1 + len(sites) + len(paths)
    failed = sum(line.startswith("not ok") for line in results)
    guilty = [site for site in sites if site.verdict >= Verdict.LIKELY]
    wrong = {site.injected.error_path for site in report.sites if site.injected is not None
             and site.verdict >= Verdict.LIKELY}  # fmt: skip
    wrong |= {path.number for path in paths if path.outcome.is_found}
    assert failed == sum(site.is_finding for site in guilty) + len(wrong)
    assert ("# SKIP" in results[0]) == (not report.trust.complete)
    skipped = sum("# SKIP" in line for line in results)
    assert skipped == len(guilty) + len(wrong) - failed + (not report.trust.complete)
    assert lines[-1].startswith(f"# Totals: pass:{len(results) - failed - skipped} fail:{failed} ")


@pytest.mark.parametrize("fail_on", VERDICTS)
def test_ktap_fails_from_the_verdict_on_that_was_asked_for(fail_on):
    material = SAMPLES["6.18--pipes"]
    text = str(BY_NAME["ktap"].render(material, Look(fail_on=fail_on)))
    first, second = material.report.sites
    assert second.parent is not None
    assert text.count("not ok") == (first.verdict >= fail_on)
    assert text.count("# SKIP hangs on test 2: ") == (second.verdict >= fail_on)


def test_markdown_has_the_trace_as_decode_stacktrace_prints_it():
    text = str(shown("markdown", "6.12--leaky"))
    assert "\n lose_sessions (buffers.c:58) leaky\n buffers_create (buffers.c:82) leaky\n" in text
    assert "\n do_one_initcall+0x5b\n" in text
    assert "    kleak module leaky.ko label=hello --cycles 5\n" in text
    assert f"- module build-id: `{SAMPLES['6.12--leaky'].report.target.build_id}`" in text


def test_markdown_of_a_run_tells_its_scope():
    assert (
        "    kleak run --scope alloc_pipe_info --scope 'vmalloc*' --repeat 4 -- COMMAND\n"
    ) in str(shown("markdown", "6.18--pipes"))


@pytest.mark.parametrize(
    ("target", "scope", "cycles", "command"),
    [
        (Target("symbols", "f*,[lib]"), ("f*", "[lib]"), 3, "run --scope 'f*' --module lib"),
        (Target("module", "lib,user"), ("lib", "user"), 6, "module lib --module user --cycles 3"),
    ],
)
def test_markdown_tells_the_modules(target, scope, cycles, command):
    captured = build.session(build.site([3] * cycles), target=target)
    about = Circumstances(scope=scope, planned_cycles=cycles)
    text = str(BY_NAME["markdown"].render(material(replace(captured, circumstances=about)), Look()))
    assert f", as root:\n\n    kleak {command}" in text


def test_no_markup_of_a_name_survives_in_markdown():
    text = str(shown("markdown", "hostile", verbose=True))
    fences = [line for line in text.splitlines() if "```" in line]
    assert set(fences) == {"```"}
    assert len(fences) % 2 == 0
    outside = re.sub(r"^```$.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in outside.splitlines():
        if not line.startswith("    "):
            assert not re.search(r"(?<!\\)[<>`]", line), line


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"parquet", "pprof"}))
def test_no_control_character_of_a_name_survives(name):
    text = str(shown(name, "hostile"))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)


def test_no_name_is_a_formula_in_csv():
    text = str(shown("csv", "hostile"))
    assert "cmd|" in text
    assert not re.search(r"(?m)(?:^|,)\"?[=+@]", text)


def test_no_markup_of_a_name_survives_in_html():
    text = str(shown("html", "hostile"))
    assert HOSTILE not in text
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    assert text.count("<img") == 0
    assert text.count("</style>") == 1
    assert text.count("<title>") == text.count("</title>")  # those of the charts too


@every_sample
def test_html_needs_nothing_from_elsewhere(sample):
    text = re.sub(r"<script.*?</script>", "", str(shown("html", sample)), flags=re.DOTALL)
    for address in re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"'\s>)]+)", text):
        assert address.startswith(("#", "data:")) or sample == "hostile", address


@every_sample
def test_parquet_has_the_sites_of_every_session(sample):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(io.BytesIO(shown("parquet", sample))).to_pylist()
    material = SAMPLES[sample]
    assert {row["session"] for row in rows} == {capture.name for capture in material.captures}
    assert sum(row["bytes"] or 0 for row in rows) == sum(
        total_bytes(capture.report) for capture in material.captures
    )


# --- what is no finding by itself

HANGS = "older objects there point to each of the 15 that were checked at offset 8"
EXCUSED = "suppressed by known.supp:1: leak:^known$"


@pytest.mark.parametrize("name", ["text", "json", "csv", "markdown", "ktap", "html", "parquet"])
@pytest.mark.parametrize("reason", [HANGS, EXCUSED])
def test_formats_that_list_sites_say_why_one_is_no_finding(name, reason):
    shown_text = shown(name, "standing")
    if name == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        shown_text = str(parquet.read_table(io.BytesIO(shown_text)).to_pylist())
    # Wrapped, and a \\ in front of what would be markup.
    plain = " ".join(str(shown_text).split()).replace("\\", "")
    assert reason in plain
    assert reason not in str(shown(name, "6.12--leaky"))


def test_ranks_of_the_sample_are_as_these_tests_say():
    sites = SAMPLES["standing"].report.sites
    assert [site.frames[0].symbol for site in sites] == ["record", "name", "known"]
    assert {site.verdict for site in sites} == {Verdict.CONFIRMED}
    assert [(site.parent is None, site.excuse is None) for site in sites] == [
        (True, True),
        (False, True),
        (True, False),
    ]


def test_csv_has_parent_and_excuse_in_its_last_columns():
    header, record, name, known = csv.reader(io.StringIO(shown("csv", "standing")))
    assert header[-5:] == ["parent_rank", "parent_by", "parent_says", "excuse_by", "excuse_says"]
    assert record[-5:] == [""] * 5
    assert name[-5:] == ["1", "pointers", HANGS, "", ""]
    assert known[-5:] == ["", "", "", "suppression", EXCUSED]


def test_parquet_names_the_parent_by_its_site_id():
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(io.BytesIO(shown("parquet", "standing"))).to_pylist()
    record, name, known = ([row[key] for key in list(row)[-5:]] for row in rows)
    assert record == [None] * 5
    assert name == [rows[0]["site_id"], "pointers", HANGS, None, None]
    assert known == [None, None, None, "suppression", EXCUSED]


def test_pprof_has_a_label_to_leave_such_sites_out_by():
    profile = profile_class()()
    profile.ParseFromString(gzip.decompress(shown("pprof", "standing")))
    text = profile.string_table
    labels = [{text[one.key]: text[one.str] for one in it.label} for it in profile.sample]
    assert [(one.get("parent"), one.get("excuse")) for one in labels] == [
        (None, None),
        ("pointers", None),
        (None, "suppression"),
    ]


def test_markdown_has_a_child_below_its_parent_and_an_excused_site_at_the_end():
    text = str(shown("markdown", "standing"))
    assert text.splitlines()[0] == (
        "# leaky: confirmed: 3.8 kB outstanding from 1 place (1 more hangs on it)"
    )
    assert [line for line in text.splitlines() if line.startswith("##")] == [
        "## 1. record at a.c:12: confirmed (score 97.6)",
        "### 2. name at a.c:15: confirmed (score 97.6), hangs on 1",
        "## Also outstanding",
        "## To reproduce",
    ]
    assert f"\n\nIt hangs on 1: {HANGS}.\n\n" in text
    assert "\n| 3 | confirmed | 10 | 1.2 kB | `known at b.c:7` | does not count: suppr" in text
    at_length = str(shown("markdown", "standing", verbose=True))
    assert "\n## 3. known at b.c:7: confirmed (score 97.6), does not count\n" in at_length


@pytest.mark.parametrize(("name", "says"), [("markdown", "that counts"), ("html", "retained")])
def test_the_headline_does_not_count_what_is_excused(name, says):
    material = SAMPLES["standing"]
    known = replace(material.report, sites=material.report.sites[2:])
    text = str(BY_NAME[name].render(Material(known, material.captures), Look()))
    headline = re.search('<p class="verdict.*' if name == "html" else "^# .*", text)
    assert says in headline[0]
    assert "confirmed" not in headline[0]


def test_html_marks_sites_by_a_class_and_a_word():
    text = str(shown("html", "standing"))
    items = re.findall(r"<li(?: class=\"([\w ]+)\")?><details.*?</summary>", text, re.DOTALL)
    assert items == ["", "hangs", "excused"]
    assert re.findall(r'<span class="tag">([^<]+)', text) == ["hangs on 1", "does not count"]
    assert re.findall(r'<p class="standing">([^<]+)', text) == [
        f"hangs on 1: {HANGS}",
        f"does not count: {EXCUSED}",
    ]


# --- which format


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.txt", "text"),
        ("a.json", "json"),
        ("a.speedscope.json", "speedscope"),
        ("A.HTML", "html"),
        ("a.pb.gz", "pprof"),
        ("a.md", "markdown"),
        ("a.parquet", "parquet"),
        ("a.kleak", None),
        ("json", None),
    ],
)
def test_a_files_extension_tells_the_format(file, name):
    found = for_file(file)
    assert (None if found is None else found.name) == name


def test_extensions_are_no_two_formats():
    extensions = [extension for one in RENDERERS for extension in one.extensions]
    assert len(extensions) == len(set(extensions))


def test_width_and_color_change_the_text_only_in_width_and_color():
    material = SAMPLES["6.12--leaky"]
    plain = str(BY_NAME["text"].render(material, Look(width=80)))
    wide = str(BY_NAME["text"].render(material, Look(width=200, color=True)))
    assert " ".join(re.sub(r"\x1b\[[0-9;]*m", "", wide).split()) == " ".join(plain.split())


def test_a_clean_session_has_a_row_in_parquet():
    parquet = pytest.importorskip("pyarrow.parquet")
    (row,) = parquet.read_table(io.BytesIO(shown("parquet", "empty"))).to_pylist()
    assert row["site_id"] is None
    assert row["complete"] is True


def test_sessions_of_two_kernels_do_not_pass_for_one():
    for name in ("text", "markdown", "html", "ktap", "speedscope"):
        assert "2 sessions on 2 kernels" in str(shown(name, "merged")), name
    assert "2 sessions on 2 kernels" in gzip.decompress(shown("pprof", "merged")).decode(
        errors="replace"
    )


def test_incomplete_sessions_look_incomplete_in_every_format_for_people():
    material = SAMPLES["lossy"]
    clean = replace(material.report, sites=())
    for name in ("text", "markdown", "html"):
        text = str(BY_NAME[name].render(Material(clean, material.captures), Look()))
        assert "INCOMPLETE" in text
