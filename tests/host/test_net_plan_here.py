"""Net plans on the running kernel: what happens, what is said of what fails, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kleak.capture.target.net_plan import NetPlan, parse_plan, parse_steps
from kleak.capture.target.netlink import run_plan
from kleak.errors import TargetError

# What the kernel has that the tests run on: it cannot load modules.
KIND = "ifb"


def made_here(kind: str) -> bool:
    try:
        run_plan(parse_steps(f"link add kind {kind}"))
    except TargetError:
        return False
    return True


@pytest.fixture(autouse=True)
def need_devices() -> None:
    if not made_here(KIND):
        pytest.skip(f"this kernel makes no devices of kind {KIND}")


def devices() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def namespaces() -> int:
    """How many network namespaces there are in use by processes."""
    return len({os.readlink(path) for path in Path("/proc").glob("[0-9]*/ns/net") if path.exists()})


def test_a_device_comes_moves_and_goes() -> None:
    before = devices()
    run_plan(
        parse_plan(
            f"""
            repeat = 3
            steps = [
                "link add kleak0 kind {KIND} mtu 1400 ifalias 010 address 02:00:00:00:00:17",
                "link set kleak0 up",
                "address add 192.0.2.1/24 dev kleak0",
                "address add 2001:db8::1/64 dev kleak0",
                "link set kleak0 down",
                "link set kleak0 netns other",
                "-n other link del kleak0",
            ]
            """,
            "all.toml",
        )
    )
    assert devices() == before


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            "link add kind ifb; link set kleak9 up",
            "net plan: step 2 of 2 (link set kleak9 up): no device kleak9",
        ),
        (
            "link add kind ifb; link add kind ifb",
            "net plan: step 2 of 2 (link add kind ifb): File exists",
        ),
        (
            "link add kind ifb; link set kleak0 netns a; link del kleak0",
            "net plan: step 3 of 3 (link del kleak0): no device kleak0",
        ),
        (
            "-n a link del kleak0",
            "net plan: step 1 of 1 (-n a link del kleak0): no device kleak0 in namespace a",
        ),
        (
            "link add kind no_such_kind",
            "net plan: step 1 of 1 (link add kind no_such_kind): "
            "this kernel makes no devices of kind no_such_kind, or not by netlink",
        ),
        (
            "link add kind ifb mtuu 3",
            "net plan: step 1 of 1 (link add kind ifb mtuu 3): no attribute of ifb: mtuu",
        ),
        (
            "netdevsim del 7",
            "net plan: step 1 of 1 (netdevsim del 7): No such file or directory",
        ),
    ],
)
def test_a_step_that_fails_is_named(steps: str, said: str) -> None:
    before = devices()
    with pytest.raises(TargetError) as raised:
        run_plan(parse_steps(steps))
    assert str(raised.value) == said
    assert devices() == before


def test_the_round_is_named() -> None:
    plan = NetPlan("p", parse_steps("link add kind ifb").steps, repeat=2)
    with pytest.raises(TargetError, match=r"step 1 of 1, round 2 \(link add kind ifb\)"):
        run_plan(plan)


def test_the_time_is_limited() -> None:
    steps = parse_steps("link add kind ifb; link del kleak0").steps
    with pytest.raises(TargetError, match=r"has not ended after 0\.3 s: endless"):
        run_plan(NetPlan("endless", steps, repeat=10_000_000, timeout_s=0.3))
    with pytest.raises(ChildProcessError):  # the child was waited for
        os.waitpid(-1, os.WNOHANG)


LONG = """
import sys, time
from kleak.capture.target.netlink import run_plan
from kleak.capture.target.net_plan import NetPlan, parse_steps
steps = parse_steps("link add kind ifb; link del kleak0").steps
print("begins", flush=True)
run_plan(NetPlan("endless", steps, repeat=10_000_000))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_survives_a_signal(number: signal.Signals) -> None:
    before = namespaces()
    process = subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    wait_until(lambda: namespaces() > before)
    process.send_signal(number)
    process.wait(timeout=60)
    wait_until(lambda: namespaces() == before)


def wait_until(what) -> None:
    give_up = time.monotonic() + 60
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.05)
