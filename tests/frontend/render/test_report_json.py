import json
from dataclasses import replace

import jsonschema
import pytest

from kleak.analysis.judge import judge
from kleak.model.session import Frame, Tally, Target
from kleak.render.report_json import document, render
from tests.support.paths import TOP
from tests.support.samples import KERNFS, session, site, stack

SCHEMA = json.loads((TOP / "docs" / "report-1.schema.json").read_text())
UNNAMED = (Frame(None, "__kmalloc_noprof", 1), Frame("leaky", None, 28), Frame(None, None, 1 << 63))


def reports():
    leak = site([3] * 5)
    yield "leaks", judge(session(leak, site([9, 0, 0, 0, 0], frames=KERNFS)))
    yield "none", judge(session(cycles=2))
    yield "lossy", judge(session(leak, lost={"missed frees": 7}, regions=None))
    yield "unnamed", judge(session(site([1], frames=UNNAMED)))
    target = Target("symbols", "pipe_*", None, ("a=1",), "0.1", "00ff")
    yield "symbols", judge(session(leak, target=target))
    report = judge(session(leak))
    unknown = replace(report.sites[0], per_cycle=None, requested_bytes=None)
    yield "unknown", replace(report, sites=(unknown,))


@pytest.mark.parametrize("report", [r for _, r in reports()], ids=[name for name, _ in reports()])
def test_document_is_what_the_schema_promises(report):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(render(report)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.pop("trust"),
        lambda text: text.update(schema="kleak.report/2"),
        lambda text: text["sites"][0].update(verdict="certain"),
        lambda text: text["sites"][0]["frames"].clear(),
        lambda text: text["sites"][0]["frames"][0].pop("source"),
        lambda text: text["sites"][0]["outstanding"].update(bytes="12"),
    ],
)
def test_schema_refuses_other_documents(spoil):
    text = document(judge(session(site([3] * 5))))
    spoil(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(text)


def test_values():
    found = json.loads(render(judge(session(site([3] * 5)))))
    assert found["schema"] == "kleak.report/1"
    assert found["kernel"] == {"release": "6.12.117+deb12-amd64", "machine": "x86_64"}
    assert found["cycles"] == 5
    assert found["totals"]["confirmed"] == {
        "sites": 1,
        "findings": 1,
        "count": 15,
        "bytes": 1920,
    }
    (leak,) = found["sites"]
    assert leak["rank"] == 1
    assert leak["verdict"] == "confirmed"
    assert leak["outstanding"] == {"count": 15, "bytes": 1920}
    assert leak["requested_bytes"] == 15 * 123
    assert leak["per_cycle"] == [{"count": 3, "bytes": 384}] * 5
    assert leak["frames"][0] == {
        "symbol": "leak_it",
        "offset": 28,
        "module": "leaky",
        "source": {"file": "leaky.c", "line": 12},
    }
    assert leak["frames"][2]["source"] is None
    assert [frame["symbol"] for frame in leak["allocator_frames"]] == ["__kmalloc_cache_noprof"]
    assert set(leak["evidence"][0]) == {"witness", "says", "weight"}


def test_keys_come_in_the_order_of_the_design():
    text = render(judge(session(site([3] * 5))))
    assert list(json.loads(text)) == [
        "schema",
        "kernel",
        "target",
        "cycles",
        "trust",
        "totals",
        "sites",
    ]
    assert render(judge(session(site([3] * 5)))) == text


def test_maps_do_not_depend_on_the_order_of_capture():
    one = judge(session(site([3]), lost={"a": 1, "b": 2}))
    two = judge(session(site([3]), lost={"b": 2, "a": 1}))
    assert render(one) == render(two)


def test_no_control_character_leaves_raw_and_none_is_lost():
    name = "evil\x1b[2J\x7f\u202e\x9b"
    text = render(judge(session(site([1], frames=(*stack("f+1"), Frame("leaky", name, 1))))))
    assert text.isascii()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert json.loads(text)["sites"][0]["frames"][1]["symbol"] == name


def test_tally_of_unknown_cycles_is_null():
    report = judge(session(site([3] * 2)))
    report = replace(report, sites=(replace(report.sites[0], per_cycle=None),))
    assert document(report)["sites"][0]["per_cycle"] is None
    assert document(report)["sites"][0]["outstanding"]["count"] == Tally(6).count
