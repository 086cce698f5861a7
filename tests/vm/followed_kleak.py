"""Run in the guest: kleak follows modules while a shell loads and unloads them.

Arguments: a line for the shell, which runs when kleak is ready, then "wait" or "interrupt" (Ctrl-C
when the shell has ended, or has failed), then kleak's own arguments. Prints what became of it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

line, ending, *arguments = sys.argv[1:]
kleak = subprocess.Popen(
    [sys.executable, "-m", "kleak", "module", *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
)
assert kleak.stdout is not None
assert kleak.stderr is not None
said = []
for text in kleak.stderr:
    said.append(text)
    if text.startswith("following "):
        break
shell = subprocess.run(["/bin/sh", "-e", "-c", line], capture_output=True, text=True, check=False)
rest: list[str] = []
reader = threading.Thread(target=lambda: rest.extend(kleak.stderr))
reader.start()
if ending == "interrupt" or shell.returncode:
    kleak.send_signal(signal.SIGINT)
stdout = kleak.stdout.read()
reader.join()
print(
    json.dumps(
        {
            "status": kleak.wait(),
            "stdout": stdout,
            "stderr": "".join(said + rest),
            "shell": [shell.returncode, shell.stderr],
            "loaded": Path("/proc/modules").read_text(),
        }
    )
)
