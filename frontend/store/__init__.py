"""Sessions as files: one SQLite database each. docs/session-file.md describes the tables."""
