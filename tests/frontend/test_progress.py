"""Progress where there is no terminal: a long run shows that it goes on, in few lines."""

from __future__ import annotations

import time
from itertools import pairwise

from kleak import progress


def test_lines_come_seldom_and_ever_less_often(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown = progress.make_progress()
    came = []
    for second in range(24 * 3600):
        now = 100.0 + second
        shown.say(f"run 2 of 3 ({second} s)")
        if printed := capsys.readouterr().err:
            assert printed == f"progress: run 2 of 3 ({second} s)\n"
            came.append(second)
    shown.done()
    assert came[:7] == [10, 20, 40, 80, 160, 320, 640]
    assert max(b - a for a, b in pairwise(came)) == 600
    assert len(came) < 160


def test_a_short_run_prints_none_and_a_closed_pipe_ends_nothing(monkeypatch, capsys):
    shown = progress.make_progress()
    shown.say("compiling")
    assert capsys.readouterr().err == ""

    class Closed:
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(progress.time, "monotonic", lambda: 1e9)
    monkeypatch.setattr(progress.sys, "stderr", Closed())
    shown.say("run 2 of 3")


def test_what_says_nothing_itself_is_kept_alive() -> None:
    said: list[str] = []

    class Told:
        def say(self, text: str) -> None:
            said.append(text)

        def done(self) -> None:
            pass

    with progress.keep_saying(Told(), "compiling"):
        until = time.monotonic() + 20
        while len(said) < 3 and time.monotonic() < until:
            time.sleep(0.05)
    assert said[:3] == ["compiling", "compiling (1 s)", "compiling (2 s)"]
    told = len(said)
    time.sleep(1.2)
    assert len(said) == told
