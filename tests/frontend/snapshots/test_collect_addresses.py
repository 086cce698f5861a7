"""What the collecting script says of the addresses in /proc/vmallocinfo, 64 and 32 bits."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from kleak.snapshots.collect import script

SHELLS = [["sh"], *([["busybox", "sh"]] if shutil.which("busybox") else [])]
TAIL = "f+0x1/0x2 [m] pages=1 vmalloc\n"


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("0xffffc90000000000-0xffffc90000002000    8192 " + TAIL, "real"),
        ("0x00000000f893ea91-0x000000006fb5c64a    8192 " + TAIL, "hashed"),
        ("0x0000000000000000-0x0000000000000000    8192 " + TAIL, "zero"),
        ("0xbf000000-0xbf014000   81920 " + TAIL, "real"),
        ("0xfff00000-0xfff02000    8192 " + TAIL, "real"),
        ("0xf893ea91-0x6fb5c64a    8192 " + TAIL, "hashed"),
        ("0x00000000-0x00000000    8192 " + TAIL, "zero"),
        ("", "unknown"),
    ],
)
def test_addresses(tmp_path, shell, row, kind):
    (tmp_path / "vmallocinfo").write_text(row)
    block = re.search(r'(?ms)^if \[ ! -s "\$work/vmallocinfo" \]; then$.*?^fi$', script())
    told = subprocess.run(
        [*shell, "-uc", f'work={tmp_path}; note() {{ echo "$2"; }}; {block[0]}'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == kind
