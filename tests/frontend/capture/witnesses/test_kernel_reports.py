"""Asking the running kernel: its log from here on, and its reports before and after."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kleak.capture.witnesses import kernel_log, kernel_reports, registered_names
from kleak.capture.witnesses.kernel_log import KernelLog
from kleak.capture.witnesses.kernel_reports import KernelReports
from kleak.capture.witnesses.observer import Observer
from kleak.model.witnesses import USED, absent, not_asked
from kleak.parsers import kmsg, slabinfo

WRITABLE_LOG = pytest.mark.skipif(
    not os.access(kernel_log.KMSG, os.W_OK), reason="needs root, and a kernel log to write to"
)


def say(text: str) -> None:
    """Write a line to the kernel log, as a warning. Without its end it would wait for more."""
    with open(kernel_log.KMSG, "w", encoding="utf-8") as log:
        log.write(f"<4>{text}\n")


@WRITABLE_LOG
def test_log_begins_where_the_capture_does() -> None:
    say("kleak-test: before")
    with KernelLog() as log:
        say("kleak-test: one")
        assert [line.text for line in kmsg.lines(log.read() or "")][-1] == "kleak-test: one"
        say("kleak-test: two")
        text = log.read()
        assert text is not None
        assert log.state == USED
    said = [line for line in kmsg.lines(text) if line.text.startswith("kleak-test")]
    assert [line.text for line in said] == ["kleak-test: one", "kleak-test: two"]
    assert said[0].severity == 4


@WRITABLE_LOG
def test_records_beyond_the_bound_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_log, "MOST_BYTES", 1500)
    with KernelLog() as log:
        for i in range(7):
            say(f"kleak-test: {i} {'x' * 400}")
        text = log.read()
        assert text is not None
        assert "kleak-test: 0" in text
        assert "kleak-test: 6" not in text
        assert str(log.state).startswith("incomplete: ")


def test_a_kernel_without_the_file_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_log, "KMSG", str(tmp_path / "kmsg"))
    with KernelLog() as log:
        assert log.read() is None
        assert log.state == absent(f"{tmp_path}/kmsg: No such file or directory")


@pytest.mark.skipif(not os.access("/proc/slabinfo", os.R_OK), reason="needs root")
def test_reports_are_taken_before_and_after() -> None:
    with KernelReports() as reports:
        answers = reports.answers()
    caches = [answer for answer in answers if answer.witness == "slabinfo"]
    assert len(caches) == 2
    assert caches[0].taken_at_ns < caches[1].taken_at_ns
    assert slabinfo.parse(caches[1].text).caches
    assert reports.states["slabinfo"] == USED
    assert set(reports.states) >= {"allocinfo", "kernel log", "registered names"}


class Modules:
    """The modules that are loaded, as if somebody else loaded and unloaded them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loaded = dict.fromkeys(["other"])
        monkeypatch.setattr(kernel_reports, "loaded_modules", lambda: self.loaded)

    def load(self, name: str) -> None:
        self.loaded[name] = None

    def unload(self, name: str) -> None:
        del self.loaded[name]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Modules:
    monkeypatch.setattr(kernel_reports, "_SLABINFO", Path("/proc/meminfo"))  # which all may read
    return Modules(monkeypatch)


def test_a_module_that_is_loaded_at_the_end_is_not_compared_with_its_absence(
    modules: Modules,
) -> None:
    with KernelReports(["leaky", "user"]) as reports:
        modules.load("leaky")
        answers = reports.answers()
        assert [answer.witness for answer in answers].count("slabinfo") == 1
        assert reports.states["slabinfo"] == absent("leaky was loaded after the cycles")
        assert "after" not in str(reports.states["kernel log"])
        modules.unload("leaky")
        answers = reports.answers()
    assert [answer.witness for answer in answers].count("slabinfo") == 2
    assert reports.states["slabinfo"] == USED


def test_what_was_refused_at_the_start_is_not_asked_again(modules: Modules) -> None:
    modules.load("leaky")
    with KernelReports(["leaky"]) as reports:
        modules.unload("leaky")
        assert "slabinfo" not in [answer.witness for answer in reports.answers()]
    assert reports.states["slabinfo"] == absent("leaky was loaded before the cycles")


@pytest.mark.parametrize("comes", [True, False])
def test_a_module_that_comes_or_goes_while_a_report_is_read_counts(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    during: list[Callable[[str], None]] = []

    def read() -> kernel_reports._Reply:
        for change in during:
            change("leaky")
        return kernel_reports._Reply("text")

    monkeypatch.setattr(kernel_reports, "_ASKED_TWICE", {"allocinfo": read})
    with KernelReports(["leaky"]) as reports:
        if not comes:
            modules.load("leaky")
        during.append(modules.load if comes else modules.unload)
        reports.answers()
    assert reports.states["allocinfo"] == absent("leaky was loaded after the cycles")


def test_reports_that_are_never_asked_for_are_absent() -> None:
    observer = Observer(["*"], 1)
    observer.sample("start", 0, ())
    assert observer.describe((), (), finished=True).answers == ()
    assert observer.witnesses == {
        "allocinfo": not_asked("nothing to compare: not before and after"),
        "kernel log": not_asked("nothing to compare: not before and after"),
        "registered names": not_asked("nothing to compare: not before and after"),
        "slabinfo": not_asked("nothing to compare: not before and after"),
        "meminfo": absent("not read at a quiet moment after each cycle"),
    }
    observer.sample("settled", 1, ())
    assert "meminfo" not in observer.witnesses


def test_names_of_registries(tmp_path: Path) -> None:
    for path in (
        "proc/331/fd",
        "proc/fs/ext4/sda",
        "proc/sys/kernel",
        "proc/leaky",
        "sys/kernel/debug/leaky/state",
        "sys/kernel/slab/leaky_objects",
        "sys/devices/platform/leaky.0/power",
        "sys/devices/system/cpu/cpu0",
    ):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "sys/devices/platform/leaky.0/uevent").touch()
    (tmp_path / "sys/kernel/slab/merged").symlink_to("leaky_objects")
    text = registered_names.list_names(tmp_path)
    assert text is not None
    assert text.splitlines() == [
        "/proc/fs",
        "/proc/fs/ext4",
        "/proc/leaky",
        "/sys/devices/platform",
        "/sys/devices/platform/leaky.0",
        "/sys/devices/platform/leaky.0/power",
        "/sys/kernel/debug/leaky",
        "/sys/kernel/slab/leaky_objects",
    ]


def test_no_list_is_kept_of_too_many_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered_names, "MOST_NAMES", 3)
    for i in range(5):
        (tmp_path / "proc" / f"name{i}").mkdir(parents=True)
    assert registered_names.list_names(tmp_path) is None
