import os
import re
import signal
import sqlite3
import stat
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleak.analysis.judge import judge
from kleak.errors import UsageError
from kleak.files.output_files import Place
from kleak.model.session import Circumstances, CycleTally, Frame, Session, Source, Tally, TracedSite
from kleak.store import schema
from kleak.store.header import is_session
from kleak.store.reader import read_session
from kleak.store.writer import SessionWriter
from tests.support.paths import TOP
from tests.support.samples import LEAK, regions_of, session, site
from tests.support.saved import everything, hostile, saved_files

DOCS = TOP / "docs"


def save(path: Path, *sessions: Session) -> Path:
    with SessionWriter(path) as writer:
        for one in sessions:
            writer.save(one)
    return path


def by_site(saved: Session) -> Session:
    """The order of sites with equal bytes is not kept."""
    return replace(saved, sites=tuple(sorted(saved.sites, key=repr)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.kleak"


# --- there and back


@pytest.mark.parametrize("saved", [everything(), hostile(), session(cycles=3)])
def test_what_is_read_is_what_was_saved(path, saved):
    found = read_session(save(path, saved))
    assert by_site(found) == by_site(saved)
    for one, other in zip(by_site(found).sites, by_site(saved).sites, strict=True):
        assert [frame.source for frame in one.frames] == [frame.source for frame in other.frames]


def test_the_sample_has_a_value_in_every_field():
    def check(value, place):
        if is_dataclass(value):
            for field in fields(value):
                default = field.default
                assert getattr(value, field.name) != default or default is True, (
                    f"{place}.{field.name} is not tried"
                )
                check(getattr(value, field.name), f"{place}.{field.name}")

    check(replace(everything(), sites=()), "session")
    check(everything().sites[0], "site")


def test_the_same_is_concluded_from_the_file(path):
    area = site([2] * 5, allocator="vmalloc", object_bytes=16384, sampled=10)
    captured = session(area, site([3] * 5, sampled=2), regions=regions_of(area))
    assert judge(read_session(save(path, captured))) == judge(captured)


names = st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=9))
words = st.integers(0, (1 << 64) - 1)
small = st.integers(0, 1 << 40)
frames = st.builds(
    Frame, names, names, words, st.one_of(st.none(), st.builds(Source, st.text(), small))
)
tallies = st.builds(CycleTally, st.builds(Tally, small, small), st.builds(Tally, small, small))
sites = st.lists(
    st.builds(
        TracedSite,
        st.sampled_from(["kmalloc", "vmalloc"]),
        st.lists(frames, min_size=1, max_size=5).map(tuple),
        st.tuples(tallies, tallies, tallies),
        st.one_of(st.none(), small),
    ),
    max_size=5,
    unique_by=lambda one: (one.allocator, one.frames),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(sites, min_size=1, max_size=4))
def test_the_last_of_several_saves_is_what_is_there(tmp_path_factory, several):
    saves = [session(*one, cycles=3) for one in several]
    path = tmp_path_factory.mktemp("saves") / "session.kleak"
    found = read_session(save(path, *saves))
    assert by_site(found) == by_site(saves[-1])


def test_a_session_can_be_read_while_it_is_written(path):
    with SessionWriter(path) as writer:
        writer.save(session(site([3])))
        assert len(read_session(path).cycles) == 1
        writer.save(session(site([3, 3])))
        assert len(read_session(path).cycles) == 2


# --- the file


def test_an_interrupt_leaves_what_was_saved_before(path, monkeypatch):
    def interrupted(place, content, **how):
        next(iter(content))
        os.kill(os.getpid(), signal.SIGINT)

    with SessionWriter(path) as writer:
        writer.save(everything())
        monkeypatch.setattr(Place, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.save(everything(cycles=3))
        assert writer.saved_cycles == 2
        monkeypatch.undo()
        assert by_site(read_session(path)) == by_site(everything())
        writer.save(everything(cycles=3))
    assert by_site(read_session(path)) == by_site(everything(cycles=3))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_only_the_owner_may_read(path):
    before = os.umask(0)
    try:
        save(path, everything())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_else_is_left_there(path):
    save(path, everything())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_under_sudo_the_file_is_the_callers(path, monkeypatch):
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "4321")
    save(path, everything())
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_an_older_session_is_replaced_and_nothing_else(path):
    save(path, everything())
    with SessionWriter(path, replace=True) as writer:
        writer.save(session(cycles=4))
    assert len(read_session(path).cycles) == 4
    path.write_text("a text that somebody needs")
    for replace_it in (False, True):
        with pytest.raises(UsageError, match="exists and is no session: kleak will not overwrite"):
            SessionWriter(path, replace=replace_it)
    assert path.read_text() == "a text that somebody needs"


@pytest.mark.parametrize("where", ["missing/session.kleak", "."])
def test_where_it_cannot_be_made(tmp_path, where):
    with pytest.raises(UsageError, match=r"no directory|is a directory"):
        SessionWriter(tmp_path / where)


# --- cut short


@pytest.mark.parametrize(
    ("saved", "planned", "note", "missing"),
    [
        (6, 10, "in cycle 7 of 10: cycles 1 to 6 are saved, cycle 7 is missing", 4),
        (1, 2, "in cycle 2 of 2: cycle 1 is saved, cycle 2 is missing", 1),
        (0, 3, "in cycle 1 of 3: no cycle is saved, cycle 1 is missing", 3),
        (3, 3, "after its last cycle: frees that came late are missing", 0),
    ],
)
def test_a_session_that_was_cut_short_says_so(path, saved, planned, note, missing):
    about = Circumstances(planned_cycles=planned, finished=False)
    captured = replace(session(site([3] * saved), cycles=saved), circumstances=about)
    report = judge(read_session(save(path, captured)))
    assert not report.trust.complete
    assert report.trust.lost.get("cycles_cut_off", 0) == missing
    assert report.trust.lost["final_wait_cut_short"] == 1
    assert any(text.endswith(note) for text in report.trust.notes)


@pytest.mark.parametrize(
    ("target", "planned", "loads", "missing"),
    [
        ("one", 5, 3, 2),
        ("one", 5, 5, 0),
        ("one", None, 3, 0),  # kleak module --follow
        ("one,two", 6, 4, 0),  # followed: 3 were wanted, and one more began meanwhile
        ("one,two", 10, 4, 1),
    ],
)
def test_fewer_cycles_than_were_planned_are_told(path, target, planned, loads, missing):
    """Of files of captures that did not say it; and it takes nothing from the evidence."""
    captured = session(site([3] * loads), cycles=loads)
    about = replace(captured.circumstances, planned_cycles=planned)
    captured = replace(captured, circumstances=about, target=replace(captured.target, name=target))
    whole = judge(replace(captured, circumstances=replace(about, planned_cycles=None)))
    report = judge(read_session(save(path, captured)))
    assert report.trust.lost == ({"cycles_cut_off": missing} if missing else {})
    assert report.trust.complete is (missing == 0)
    assert [(one.verdict, one.score) for one in report.sites] == [
        (one.verdict, one.score) for one in whole.sites
    ]


def test_what_a_capture_says_of_its_end_stays(path):
    captured = session(site([3] * 4), cycles=4, lost={"cycles_cut_off": 2})
    about = replace(captured.circumstances, planned_cycles=5)
    read = read_session(save(path, replace(captured, circumstances=about)))
    assert read.trust.lost == {"cycles_cut_off": 2}


# --- what is no good


def test_a_missing_file(path):
    with pytest.raises(UsageError, match="No such file"):
        read_session(path)


@pytest.mark.parametrize("text", [b"", b"SQLite format 3\0", b"{}", os.urandom(9000)])
def test_what_is_no_session(path, text):
    path.write_bytes(text)
    with pytest.raises(UsageError, match="is no kleak session"):
        read_session(path)


def test_another_database_is_no_session(path):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE session (id INTEGER)")
    database.commit()
    database.close()
    assert not is_session(path)
    with pytest.raises(UsageError, match="is no kleak session"):
        read_session(path)


def test_a_newer_session(path):
    save(path, everything())
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(UsageError, match=r"was written by a newer kleak .*: update kleak"):
        read_session(path)


def test_a_session_without_any_save(path):
    save(path)
    with pytest.raises(UsageError, match="the capture ended before it saved anything"):
        read_session(path)


@pytest.mark.parametrize(
    "spoil",
    [
        "samples SET cycle = x'fffe'",
        "samples SET time_ns = 0.5",
        "cycles SET loaded_at_ns = 'soon'",
        "allocations SET allocated_at_ns = x'00'",
        "allocations SET comm = x'00'",
        "allocations SET pid = 'one'",
        "session SET started_at = 'today'",
        "session SET started_at = 1e300",
        "session SET started_at = 9e999",
        "session SET planned_cycles = x'01'",
        "session SET kernel_release = x'01'",
        "witnesses SET state = x'00'",
        "frames SET symbol = x'00'",
        "answers SET text_zlib = 'no bytes'",
    ],
)
def test_a_value_of_another_type_is_damage(path, spoil):
    save(path, everything())
    database = sqlite3.connect(path)
    database.execute(f"UPDATE {spoil}")
    database.commit()
    database.close()
    said = re.escape(f"{path}: the session is damaged (")
    with pytest.raises(UsageError, match=said):
        [list(one.kept) for one in read_session(path).sites]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_session_is_an_error_and_no_traceback(tmp_path_factory, data):
    whole = saved_files()[0].read_bytes()
    if data.draw(st.booleans()):
        spoiled = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 64))
        noise = data.draw(st.binary(min_size=1, max_size=64))
        spoiled = whole[:at] + noise + whole[at + len(noise) :]
    path = tmp_path_factory.mktemp("damaged") / "session.kleak"
    path.write_bytes(spoiled)
    # Noise in what nobody looks at may go unseen; anything else than this error is a traceback.
    with suppress(UsageError):
        found = read_session(path)
        for one in found.sites:
            list(one.kept)
        judge(found)


# --- versions


@pytest.mark.parametrize("version", range(1, schema.SCHEMA_VERSION + 1))
def test_sessions_of_every_version_are_kept_and_open(version):
    kept = [path for path in saved_files() if path.parent.name == f"v{version}"]
    assert kept, f"save a session of version {version} in tests/data/sessions/v{version}"
    for path in kept:
        database = sqlite3.connect(path)
        assert database.execute("PRAGMA user_version").fetchone()[0] == version
        database.close()
        found = read_session(path)
        assert found.sites
        assert judge(found).sites


def test_an_older_session_is_upgraded_and_its_file_left_alone(path, monkeypatch):
    save(path, everything())
    before = path.read_bytes()
    now = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "SCHEMA_VERSION", now + 2)
    monkeypatch.setattr(
        schema,
        "MIGRATIONS",
        {
            now: "ALTER TABLE session ADD COLUMN colour TEXT; UPDATE session SET colour = 'red';",
            now + 1: "UPDATE session SET host = host || ' ' || colour;",
        },
    )
    assert read_session(path).circumstances.host == "host red"
    assert path.read_bytes() == before


def test_every_older_version_has_a_way_up():
    assert sorted(schema.MIGRATIONS) == list(range(1, schema.SCHEMA_VERSION))


# --- the page


def test_the_page_names_every_table_and_column(path):
    page = (DOCS / "session-file.md").read_text()
    assert f"the version of the schema, now {schema.SCHEMA_VERSION}." in page
    assert f"0x{schema.APPLICATION_ID:X}" in page
    save(path, everything())
    database = sqlite3.connect(path)
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
        assert f"**{table}**" in page, table
        paragraph = next(part for part in page.split("\n\n") if f"**{table}**" in part)
        for row in database.execute(f"PRAGMA table_info({table})"):
            if (table, row[1]) != ("session", "id"):
                assert f"`{row[1]}`" in paragraph, (table, row[1])
    database.close()


def test_the_query_of_the_page_works():
    page = (DOCS / "session-file.md").read_text()
    query = re.search(r'kleak "\n(.*)"', page, re.DOTALL).group(1)
    path = next(path for path in saved_files() if path.stem == "6.12--leaky")
    database = sqlite3.connect(path)
    found = {symbol: number for symbol, _, _, number in database.execute(query)}
    database.close()
    assert found["lose_sessions"] == 25


def test_sites_that_changed_their_names_do_not_stay(path):
    renamed = (*LEAK[:-1], Frame("other", "late", 1))
    saved = read_session(save(path, session(site([3])), session(site([3], frames=renamed))))
    (only,) = saved.sites
    assert only.frames == renamed
