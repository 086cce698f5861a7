"""Run in the guest: kleak, interrupted while its exercise command runs. Prints what is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

module, number = sys.argv[1], signal.Signals[sys.argv[2]]
kptr_restrict = Path("/proc/sys/kernel/kptr_restrict")
kptr_restrict.write_text("2")
started = Path("started")
process = subprocess.Popen(
    [
        sys.executable,
        "-m",
        "kleak",
        "module",
        module,
        "--cycles",
        "97",
        "--exercise",
        "test -e second && touch started && sleep 1000; touch second",
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
)
give_up = time.monotonic() + 200
while not started.exists() and time.monotonic() < give_up:
    time.sleep(0.1)
process.send_signal(number)
stdout, stderr = process.communicate(timeout=120)
print(
    json.dumps(
        {
            "status": process.returncode,
            "stdout": stdout,
            "stderr": stderr,
            "loaded": Path("/proc/modules").read_text(),
            "kptr_restrict": kptr_restrict.read_text().strip(),
            "sleeping": subprocess.run(["pgrep", "-x", "sleep"], check=False).returncode == 0,
        }
    )
)
kptr_restrict.write_text("0")
