"""Witnesses and verdicts: from a captured session to ranked leak sites. Pure: no I/O."""
