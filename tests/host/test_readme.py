"""The README's commands that need no module, run here in their order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.readme import commands


def test_commands_of_the_readme(tmp_path: Path) -> None:
    for words in commands("host"):
        assert words[0] == "kleak"
        output = None
        if ">" in words:
            words, (_, output) = words[: words.index(">")], words[words.index(">") :]
        result = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode in (0, 1), (words, result.stderr)
        # The report of run leaves the command's output alone; -o says where another one goes.
        assert result.stdout or words[1] == "run" or "-o" in words
        if output is not None:
            (tmp_path / output).write_text(result.stdout)
    assert (tmp_path / "signalfd.html").exists()
    assert (tmp_path / "collect.sh").read_text().startswith("#!/bin/sh")
