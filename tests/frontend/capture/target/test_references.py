"""Who keeps a module from being unloaded, in words; and what an exercise left running."""

from __future__ import annotations

import os
import signal
import time

import pytest

from kleak.capture.engine.records import ReferenceCount
from kleak.capture.target.exercises import shell_exercise
from kleak.capture.target.references import PinnedError, References, describe_callers


@pytest.mark.parametrize(
    ("references", "said"),
    [
        (References(1), "1 reference"),
        (References(3), "3 references"),
        (References(1, ("user",)), "1 reference (1 of module user)"),
        (References(4, ("a", "b")), "4 references (1 of module a, 1 of module b, 2 of no module)"),
        (References(1, (), ("sleep 7",)),
         "1 reference; of the exercise there still run: sleep 7"),
        (References(9, (), tuple(f"sh {n}" for n in range(7))),
         "9 references; of the exercise there still run: sh 0, sh 1, sh 2, sh 3, sh 4, ..."),
    ],
)  # fmt: skip
def test_references_in_words(references: References, said: str) -> None:
    assert references.describe() == said
    text = str(PinnedError("leaky", "Module leaky is in use", references))
    assert text == f"module leaky does not unload: Module leaky is in use; held by {said}"


def test_what_an_exercise_left_running_is_named() -> None:
    quiet = shell_exercise("true")
    busy = shell_exercise("sleep 60 & (sleep 60 & :)")
    quiet.run()
    busy.run()
    assert quiet.left_running() == ()
    left = busy.left_running()
    try:
        # Before its exec a child is still the shell.
        assert len(left) == 2
        assert {one.split()[0] for one in left} <= {"sleep", "sh", "dash", "bash"}
    finally:
        for one in left:
            os.kill(int(one.split()[1]), signal.SIGKILL)
    until = time.monotonic() + 10
    while busy.left_running() and time.monotonic() < until:
        time.sleep(0.01)
    assert busy.left_running() == ()


COUNTS = [
    ReferenceCount("leaky", 0x10, given_back=False, number=4),
    ReferenceCount("leaky", 0x20, given_back=False, number=9),
    ReferenceCount("leaky", 0x30, given_back=True, number=3),
    ReferenceCount("other", 0x40, given_back=True, number=3),
]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("leaky", "; taken by 0x20 (9), 0x10 (4), given back by 0x30 (3)"),
        ("other", ""),
        ("none", ""),
    ],
)
def test_callers_in_words(module: str, said: str) -> None:
    assert describe_callers(COUNTS, module, hex) == said
    never = describe_callers(COUNTS[:1], "leaky", hex)
    assert never == "; taken by 0x10 (4), given back by nobody"
