"""Error paths: makes single calls of a module fail, and keeps what came of it."""
