"""Renderers: a report in one format a file. They build text; writing it is the caller's."""
