"""Plans for network devices: what they say, and what is said of those that say nothing."""

from __future__ import annotations

import pytest

from kleak.capture.target.net_plan import (
    AddAddress,
    AddLink,
    AddNetdevsim,
    DeleteLink,
    DeleteNetdevsim,
    MoveLink,
    SetLinkState,
    SetMaster,
    parse_plan,
    parse_steps,
    read_plan,
)
from kleak.errors import UsageError
from tests.support.build_modules import TOP

EXAMPLES = sorted((TOP / "examples" / "net").glob("*.toml"))


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("link add kind dummy", AddLink("kleak0", "dummy", ())),
        (
            "link add v0 kind vxlan vxlan_id 42 vxlan_group 239.1.1.1 vxlan_port 0x12b5",
            AddLink(
                "v0",
                "vxlan",
                (("vxlan_id", "42"), ("vxlan_group", "239.1.1.1"), ("vxlan_port", "0x12b5")),
            ),
        ),
        ("link set kleak0 up", SetLinkState("kleak0", True)),
        ("link set kleak0 down", SetLinkState("kleak0", False)),
        ("link set p0 master br0", SetMaster("p0", "br0")),
        ("link set p0 nomaster", SetMaster("p0", None)),
        ("link set kleak0 netns other", MoveLink("kleak0", "other")),
        ("link del kleak0", DeleteLink("kleak0")),
        ("address add 192.0.2.1/24 dev kleak0", AddAddress("kleak0", "192.0.2.1", 24)),
        ("address add 2001:db8::1/64 dev kleak0", AddAddress("kleak0", "2001:db8::1", 64)),
        ("netdevsim add 7", AddNetdevsim(7, 1)),
        ("netdevsim add 7 4", AddNetdevsim(7, 4)),
        ("netdevsim del 7", DeleteNetdevsim(7)),
    ],
)  # fmt: skip
def test_steps(text, action):
    (step,) = parse_steps(f"  {text} ;").steps
    assert step.action == action
    assert step.text == text
    assert step.namespace is None


def test_namespaces_come_by_being_named():
    plan = parse_steps(
        "link add kind dummy; link set kleak0 netns a; -n b link del x; -n a link del y"
    )
    assert [step.namespace for step in plan.steps] == [None, None, "b", "a"]
    assert sorted(plan.namespaces) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no steps"),
        (" ; ", "no steps"),
        ("link add kind dummy; link up kleak0", "step 2 (link up kleak0): must begin with one of"),
        ("link add", "expected kind KIND"),
        ("link add v0 type veth", "expected kind KIND"),
        ("link add kind", "expected kind KIND"),
        ("link add kind ../x", "no kind of device: ../x"),
        ("link add kind vxlan vxlan_id", "vxlan_id has no value"),
        ("link add kind vxlan vxlan_id 1 vxlan_id 2", "vxlan_id is given twice"),
        ("link add kind vxlan ifname x", "no attribute can be called ifname"),
        ("link add kind vxlan --id 3", "no attribute can be called --id"),
        ("link add a/b kind dummy", "no valid name: a/b"),
        ("link add .. kind dummy", "no valid name: .."),
        ("link add sixteen-letters- kind dummy", "no valid name: sixteen-letters-"),
        ("link set kleak0", "expected NAME and up, down"),
        ("link set kleak0 sideways", "expected NAME and up, down"),
        ("link del", "expected NAME"),
        ("address add 192.0.2.1/33 dev kleak0", "192.0.2.1/33"),
        ("address add 192.0.2.1/24 kleak0", "expected ADDRESS/LENGTH dev NAME"),
        ("netdevsim add x", "expected NUMBER"),
        ("-n", "-n needs the name of a namespace"),
        ("-n other", "must begin with one of"),
    ],
)
def test_bad_steps(text, said):
    with pytest.raises(UsageError) as raised:
        parse_steps(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_whole_plan():
    plan = parse_plan(
        'needs = ["vxlan"]\nrepeat = 3\ntimeout = 2.5\nsteps = ["link add kind vxlan vxlan_id 7"]',
        "x.toml",
    )
    assert (plan.name, plan.needs, plan.repeat, plan.timeout_s) == ("x.toml", ("vxlan",), 3, 2.5)
    assert [step.text for step in plan.steps] == ["link add kind vxlan vxlan_id 7"]


STEP = 'steps = ["link del a"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps = [", "x.toml: "),
        ("", "steps must be a list of strings"),
        ("steps = 'link del a'", "steps must be a list of strings"),
        ("steps = [1]", "steps must be a list of strings"),
        ("steps = []", "no steps"),
        ("steps = ['link del a', 'oops']", "x.toml: step 2 (oops): must begin with"),
        (STEP + "repaet = 3", "no such key: repaet (there are needs, repeat, steps, timeout)"),
        (STEP + "repeat = 0", "repeat must be a whole number above 0"),
        (STEP + "repeat = 1.5", "repeat must be a whole number above 0"),
        (STEP + "repeat = true", "repeat must be a whole number above 0"),
        (STEP + "timeout = '3'", "timeout must be a number above 0"),
        (STEP + "timeout = inf", "timeout must be a number above 0"),
        (STEP + "timeout = nan", "timeout must be a number above 0"),
        (STEP + "needs = 'vxlan'", "needs must be a list of module names"),
        (STEP + "needs = ['../vxlan']", "needs must be a list of module names"),
        (STEP + "needs = ['-v']", "needs must be a list of module names"),
    ],
)
def test_bad_plans(text, said):
    with pytest.raises(UsageError) as raised:
        parse_plan(text, "x.toml")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.toml: No such file or directory"):
        read_plan(str(tmp_path / "nothing.toml"))


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"x\.toml: no text"):
        read_plan(str(tmp_path / "x.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_plans_for_their_module(path):
    plan = read_plan(str(path))
    assert plan.needs[0] == path.stem


def test_there_are_the_examples():
    assert {path.stem for path in EXAMPLES} == {"bridge", "dummy", "netdevsim", "veth", "vxlan"}
