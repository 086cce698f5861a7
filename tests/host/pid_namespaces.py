"""Commands in a pid namespace of their own, with a /proc of its own or that of the outer one."""

from __future__ import annotations

import pytest

OWN_PROC = ["unshare", "--pid", "--fork", "--mount-proc"]
OUTER_PROC = ["unshare", "--pid", "--fork"]

both = pytest.mark.parametrize("within", [OWN_PROC, OUTER_PROC], ids=["own /proc", "outer /proc"])
