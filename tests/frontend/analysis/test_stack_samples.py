"""How much is known of the stacks of a site whose objects were counted by call site."""

import json
from dataclasses import replace

import jsonschema
import pytest

from kleak.analysis.judge import judge
from kleak.analysis.merge import Judged, merge, site_path
from kleak.analysis.redact import redact_report
from kleak.commands.report_file import read_report
from kleak.model.session import Frame, StackSample, Target
from kleak.render import report_json
from kleak.render.sentences import stacks_known
from tests.support.build_modules import TOP
from tests.support.samples import session, site, stack

CALL = Frame(None, "make", 0x1C)
KERNEL = Target("symbols", "*")
FIRST = stack("__kmalloc_noprof+0x11e <- make+0x1c <- first+0x4 <- do_syscall_64+0x82")
SECOND = stack("__kmalloc_noprof+0x11e <- make+0x1c <- second+0x4 <- do_syscall_64+0x82")


def sampled(walked, different, shown, *, frames=FIRST, kept=1003):
    return replace(site([kept], frames=frames), stacks=StackSample(CALL, walked, different, shown))


def report(*sites):
    return judge(session(*sites, target=KERNEL))


@pytest.mark.parametrize(
    ("traced", "said"),
    [
        (sampled(97, 3, 61), "stacks: 97 of 1,003 walked, 3 differ; shown is that of 61"),
        (sampled(97, 1, 97), "stacks: 97 of 1,003 walked, all the same"),
        (sampled(5, 2, 3, kept=5), "stacks: 5 of 5 walked, 2 differ; shown is that of 3"),
        (
            sampled(0, 0, 0),
            "stacks: none of 1,003 walked; shown is that of objects that were freed",
        ),
        (
            sampled(0, 0, 0, frames=(CALL,)),
            "stacks: none of 1,003 walked; shown is the call site alone",
        ),
        (sampled(7, 1, 7, kept=7), None),
        (site([3], frames=FIRST), None),
    ],
)
def test_what_is_known_is_said(traced, said):
    (one,) = report(traced).sites
    assert stacks_known(one) == (() if said is None else (said,))


def test_sites_that_judging_merges_add_up():
    """The allocator's frames differ; one of them was walked for each object, by another event."""
    other = stack("__kmalloc_large_noprof+0x11e <- make+0x1c <- first+0x4 <- do_syscall_64+0x82")
    (one,) = report(sampled(97, 3, 61), sampled(4, 1, 4, frames=other, kept=40)).sites
    assert one.outstanding.count == 1043
    assert one.stacks == StackSample(CALL, 101, 4, 61)
    (one,) = report(sampled(97, 3, 61), site([40], frames=other)).sites
    assert one.stacks == StackSample(CALL, 137, 4, 61)


def test_a_site_of_two_sessions_is_one_whichever_stack_each_shows():
    sites = (sampled(97, 3, 61), sampled(10, 2, 8, frames=SECOND, kept=500))
    both = [
        Judged(str(n), made := session(one, target=KERNEL), judge(made))
        for n, one in enumerate(sites)
    ]
    (one,) = merge(both).sites
    assert one.outstanding.count == 1503
    assert one.stacks is not None
    assert (one.stacks.walked, one.stacks.different) == (107, 3)
    paths = {site_path(one.report.sites[0], KERNEL) for one in both}
    assert len(paths) == 1


def test_json_says_it_and_reads_it_back(tmp_path):
    made = report(sampled(97, 3, 61), site([3], frames=SECOND))
    text = report_json.render(made)
    document = json.loads(text)
    jsonschema.validate(document, json.loads((TOP / "docs" / "report-1.schema.json").read_text()))
    frame = {"symbol": "make", "offset": 0x1C, "module": None, "source": None}
    by_count = {one["outstanding"]["count"]: one for one in document["sites"]}
    assert by_count[1003]["stacks"] == {
        "call_site": frame, "walked": 97, "different": 3, "shown": 61,
    }  # fmt: skip
    assert "stacks" not in by_count[3]
    path = tmp_path / "report.json"
    path.write_text(text)
    assert read_report(path).sites == made.sites


def test_redacting_takes_out_addresses():
    nameless = replace(
        sampled(9, 1, 9), stacks=StackSample(Frame(None, None, 0xFFFFFFFF81000000), 9, 1, 9)
    )
    (one,) = redact_report(report(nameless)).sites
    assert one.stacks == StackSample(Frame(None, None, 0), 9, 1, 9)
