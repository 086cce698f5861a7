"""The tables of a session file, its version, and how files of older versions become new ones."""

from __future__ import annotations

APPLICATION_ID = 0x6B6C656B
"""``PRAGMA application_id`` of a session file: "klek". It tells a session from other databases."""

SCHEMA_VERSION = 2
"""``PRAGMA user_version`` of the files that this kleak writes."""

MIGRATIONS: dict[int, str] = {
    1: "ALTER TABLE cycles ADD COLUMN module TEXT",
}
"""SQL that turns a file of a version into one of the next version."""

TABLES = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    kleak_version TEXT,
    host TEXT,
    started_at REAL,
    read_at_ns INTEGER,
    planned_cycles INTEGER,
    finished INTEGER NOT NULL,
    has_vmalloc_regions INTEGER NOT NULL,
    kernel_release TEXT NOT NULL,
    kernel_machine TEXT NOT NULL,
    kernel_build_id TEXT,
    target_kind TEXT NOT NULL,
    target_name TEXT NOT NULL,
    target_path TEXT,
    target_version TEXT,
    target_build_id TEXT,
    kernel_page_bytes INTEGER
);
CREATE TABLE target_parameters (position INTEGER PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE scope (position INTEGER PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE cycles (
    number INTEGER PRIMARY KEY,
    loaded_at_ns INTEGER NOT NULL,
    unloaded_at_ns INTEGER,
    failure TEXT,
    module TEXT
);
CREATE TABLE frames (
    id INTEGER PRIMARY KEY,
    module TEXT,
    symbol TEXT,
    offset INTEGER NOT NULL,
    file TEXT,
    line INTEGER
);
CREATE TABLE sites (id INTEGER PRIMARY KEY, allocator TEXT NOT NULL, requested_bytes INTEGER);
CREATE TABLE site_frames (
    site INTEGER NOT NULL REFERENCES sites (id),
    depth INTEGER NOT NULL,
    frame INTEGER NOT NULL REFERENCES frames (id),
    PRIMARY KEY (site, depth)
) WITHOUT ROWID;
CREATE TABLE tallies (
    site INTEGER NOT NULL REFERENCES sites (id),
    cycle INTEGER NOT NULL,
    allocated INTEGER NOT NULL,
    allocated_bytes INTEGER NOT NULL,
    freed INTEGER NOT NULL,
    freed_bytes INTEGER NOT NULL,
    PRIMARY KEY (site, cycle)
) WITHOUT ROWID;
CREATE TABLE allocations (
    site INTEGER NOT NULL REFERENCES sites (id),
    address INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    requested_bytes INTEGER NOT NULL,
    allocated_at_ns INTEGER NOT NULL,
    cycle INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    comm TEXT NOT NULL,
    holder TEXT
);
CREATE TABLE reachability (
    site INTEGER PRIMARY KEY REFERENCES sites (id),
    unreferenced INTEGER NOT NULL,
    same_stack INTEGER NOT NULL,
    asked INTEGER NOT NULL,
    known INTEGER NOT NULL,
    referenced INTEGER NOT NULL,
    own INTEGER NOT NULL
);
CREATE TABLE pointers (
    site INTEGER PRIMARY KEY REFERENCES sites (id),
    searched INTEGER NOT NULL,
    unreferenced INTEGER NOT NULL,
    referenced INTEGER NOT NULL
);
CREATE TABLE pointer_holders (
    site INTEGER NOT NULL REFERENCES sites (id),
    position INTEGER NOT NULL,
    what TEXT NOT NULL,
    objects INTEGER NOT NULL,
    PRIMARY KEY (site, position)
) WITHOUT ROWID;
CREATE TABLE stack_samples (
    site INTEGER PRIMARY KEY REFERENCES sites (id),
    call_site INTEGER NOT NULL REFERENCES frames (id),
    walked INTEGER NOT NULL,
    different INTEGER NOT NULL,
    shown INTEGER NOT NULL
);
CREATE TABLE losses (reason TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE repairs (reason TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE observations (event TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE means (event TEXT PRIMARY KEY, how TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE witnesses (name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE notes (position INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE build_ids (module TEXT PRIMARY KEY, build_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE settings (
    position INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    before TEXT NOT NULL,
    during TEXT NOT NULL,
    restored INTEGER NOT NULL
);
CREATE TABLE samples (
    position INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    moment TEXT NOT NULL,
    cycle INTEGER NOT NULL,
    outstanding INTEGER NOT NULL,
    outstanding_bytes INTEGER NOT NULL
);
CREATE TABLE sample_meminfo (
    sample INTEGER NOT NULL REFERENCES samples (position),
    field TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (sample, field)
) WITHOUT ROWID;
CREATE TABLE answers (
    position INTEGER PRIMARY KEY,
    witness TEXT NOT NULL,
    taken_at_ns INTEGER NOT NULL,
    text_zlib BLOB NOT NULL
);
CREATE TABLE vmalloc_regions (
    address INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    pages INTEGER,
    kind TEXT NOT NULL,
    caller TEXT
);
"""

_SIGN = 1 << 63
_WORD = 1 << 64


def signed(word: int) -> int:
    """Return an unsigned 64-bit number as SQLite can hold it: with the top bit as its sign."""
    return word - _WORD if word >= _SIGN else word


def unsigned(stored: int) -> int:
    """Return the number that :func:`signed` stored."""
    return stored + _WORD if stored < 0 else stored
