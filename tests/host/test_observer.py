"""What a capture does before its first cycle: deferred frees are pushed once, and over by then."""

from __future__ import annotations

import threading
import time

import pytest

from kleak.capture.witnesses import observer as circumstances
from kleak.capture.witnesses.observer import Observer


@pytest.mark.parametrize("begun", [False, True])
def test_frees_are_pushed_before_the_kernel_is_asked(
    begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, ended = [], []
    push = circumstances.push_deferred_frees

    def slowly() -> None:
        threads.append(threading.current_thread())
        time.sleep(0.3)
        push()
        ended.append(time.monotonic())

    monkeypatch.setattr(circumstances, "push_deferred_frees", slowly)
    observer = Observer(("*",), 1)
    if begun:
        observer.begin()
        assert not ended  # it does not wait
    with observer:
        assert len(ended) == 1
    assert (threads[0] is not threading.main_thread()) == begun
