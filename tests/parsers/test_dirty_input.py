"""Every parser on what becomes of a report on its way: logs, mail, crashes, careless hands."""

from __future__ import annotations

import pytest

from tests.parsers.samples import SAMPLES, read, sample_id

all_samples = pytest.mark.parametrize("sample", SAMPLES, ids=sample_id)
# The kernel log has a prefix of its own, and its witness lines carry the time.
without_log = pytest.mark.parametrize(
    "sample", [path for path in SAMPLES if path.parent.name != "kmsg"], ids=sample_id
)


@all_samples
def test_line_ends_of_dos(sample):
    clean, _ = read(sample.parent.name, sample.read_bytes())
    dirty, problems = read(sample.parent.name, sample.read_bytes().replace(b"\n", b"\r\n"))
    assert dirty == clean
    assert not problems


@all_samples
def test_text_lines_and_bytes_are_one(sample):
    clean, _ = read(sample.parent.name, sample.read_text())
    lines = sample.read_text().splitlines()
    assert read(sample.parent.name, lines)[0] == clean
    with sample.open("rb") as file:
        assert read(sample.parent.name, file)[0] == clean


@without_log
@pytest.mark.parametrize(
    "prefix",
    [
        "[   12.345678] ",
        "<6>[   12.345678][  T331] ",
        "Nov 23 04:00:00 board kernel: [   12.345678] ",
        "2026-11-23T04:00:00.123456+01:00 board kernel: ",
    ],
)
def test_log_prefixes(sample, prefix):
    report = sample.parent.name
    clean, _ = read(report, sample.read_text())
    inner = "kmemleak: " if report == "kmemleak" else ""
    dirty = "".join(f"{prefix}{inner}{line}\n" for line in sample.read_text().splitlines())
    found, problems = read(report, dirty)
    assert found == clean
    assert not problems


def test_lines_of_others_between_those_of_kmemleak_in_a_log():
    from kleak.parsers import kmemleak

    text = "".join(
        f"[   12.345678] kmemleak: {line}\n[   12.345679] usb 1-1: new device\n"
        for line in next(p for p in SAMPLES if p.parent.name == "kmemleak").read_text().splitlines()
    )
    assert len(kmemleak.parse(text).objects) == 2


@all_samples
def test_nul_bytes(sample):
    """A log file after a crash: blocks of NUL before and after what was written."""
    clean, _ = read(sample.parent.name, sample.read_bytes())
    dirty = b"\0" * 4096 + sample.read_bytes() + b"\0" * 512
    found, problems = read(sample.parent.name, dirty, "collect")
    assert found == clean
    assert not problems


@all_samples
def test_bytes_that_are_no_utf8_damage_only_their_record(sample):
    report = sample.parent.name
    clean, _ = read(report, sample.read_bytes())
    lines = sample.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    found, _ = read(
        report, b"".join([*lines[:middle], b"\xff\xfe\x80\n", *lines[middle:]]), "collect"
    )
    # at most the record it fell into is gone
    assert len(found) >= len(clean) - 1
    if report not in ("meminfo", "zoneinfo"):
        assert [record for record in found if record not in clean] == []


@all_samples
def test_cut_anywhere_nothing_is_raised_and_nothing_invented(sample):
    report = sample.parent.name
    data = sample.read_bytes()
    clean, _ = read(report, data)
    step = max(len(data) // 97, 1)
    for end in range(0, len(data), step):
        found, _ = read(report, data[:end], "collect")
        assert len(found) <= len(clean)
        # all but the record that was cut are as they were
        if report not in ("meminfo", "zoneinfo"):
            assert found[:-1] == clean[: max(len(found) - 1, 0)]


@pytest.mark.parametrize("report", ["meminfo", "slabinfo", "allocinfo", "buddyinfo", "zoneinfo"])
def test_two_reports_glued_together_are_not_one(report):
    from kleak.parsers import allocinfo, buddyinfo, meminfo, slabinfo, zoneinfo
    from kleak.parsers.errors import ParseError

    parsers = {
        "meminfo": meminfo, "slabinfo": slabinfo, "allocinfo": allocinfo,
        "buddyinfo": buddyinfo, "zoneinfo": zoneinfo,
    }  # fmt: skip
    text = next(path for path in SAMPLES if path.parent.name == report).read_text()
    with pytest.raises(ParseError, match=r"second|twice"):
        parsers[report].parse(text + text)
    parsers[report].parse(text + text, errors="collect")


@pytest.mark.parametrize("report", ["meminfo", "slabinfo", "allocinfo"])
def test_glued_reports_can_be_read_one_by_one(report):
    from kleak.parsers import allocinfo, meminfo, slabinfo

    parser = {"meminfo": meminfo, "slabinfo": slabinfo, "allocinfo": allocinfo}[report]
    texts = [path.read_text() for path in SAMPLES if path.parent.name == report][:2]
    assert list(parser.stream("".join(texts))) == [parser.parse(text) for text in texts]


@all_samples
def test_blank_lines_between_are_nothing(sample):
    report = sample.parent.name
    clean, _ = read(report, sample.read_text())
    assert read(report, "\n\n" + sample.read_text() + "\n\n")[0] == clean
