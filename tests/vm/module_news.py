"""Run in the guest: is kleak told that a module came, and that it went? Else this never ends."""

from __future__ import annotations

import subprocess

from kleak.capture.target.module_news import ModuleNews

NEVER_S = 10_000.0

with ModuleNews() as news:
    for command in ("modprobe", "rmmod"):
        subprocess.run([command, "dummy"], check=True)
        news.wait(NEVER_S)
        print(f"heard of {command}")
