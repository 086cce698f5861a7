"""What each parser makes of each sample, against a file beside it: the number of records, the
first and the last in full, and a digest of all.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import os

import pytest

from tests.parsers.samples import SAMPLES, read, sample_id


def plain(value):
    """As JSON has it, in an order that does not depend on hashing."""
    if dataclasses.is_dataclass(value):
        named = {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
        return {"is": type(value).__name__} | named
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


@pytest.mark.parametrize("sample", SAMPLES, ids=sample_id)
def test_golden(sample):
    records, problems = read(sample.parent.name, sample.read_bytes())
    assert not problems
    text = [json.dumps(plain(record)) for record in records]
    found = {
        "records": len(records),
        "first": plain(records[0]),
        "last": plain(records[-1]),
        "sha256": hashlib.sha256("\n".join(text).encode()).hexdigest(),
    }
    golden = sample.with_suffix(".golden.json")
    if os.environ.get("KLEAK_ACCEPT_GOLDEN"):
        golden.write_text(json.dumps(found, indent=1) + "\n")
    accept = "if this is right: KLEAK_ACCEPT_GOLDEN=1 pytest tests/parsers/test_goldens.py"
    assert golden.exists(), accept
    assert json.loads(golden.read_text()) == found, accept
