"""What is said of events that nothing works for; nothing is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from kleak.capture.engine import attached
from kleak.capture.engine.attached import AttachedPrograms
from kleak.capture.engine.hooks import Attachment, Event, Hook
from kleak.errors import UnsupportedError


def test_one_note_for_what_several_events_tell_of() -> None:
    events = [
        Event("dma_pool_alloc", (), "no objects of DMA pools"),
        Event("krealloc", (), "no sizes"),
        Event("dma_pool_free", (), "no objects of DMA pools"),
    ]
    why = "this kernel has nothing to attach to"
    assert AttachedPrograms().attach(events, {}) == [
        f"no objects of DMA pools (dma_pool_alloc: {why}; dma_pool_free: {why})",
        f"no sizes (krealloc: {why})",
    ]


def test_an_event_that_is_needed() -> None:
    with pytest.raises(UnsupportedError, match="cannot trace kfree: this kernel has nothing"):
        AttachedPrograms().attach([Event("kfree", ())], {})


def test_a_kernel_without_probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its verifier is not asked about programs that nothing could run."""
    monkeypatch.setattr(attached, "_PROBE_EVENTS", (tmp_path / "none",))
    probe = Hook(Attachment.KPROBE, "kfree_rcu", ("probe",))
    assert AttachedPrograms().attach([Event("kfree_rcu", (probe,), "no batches")], {}) == [
        "no batches (kfree_rcu: kprobe of kfree_rcu: this kernel has none)"
    ]
