"""One boot of a kernel for all the tests that want something run in it.

A test module under tests/vm declares what it wants run, and its tests read the results:

    from tests.support.guest import Guest, GuestJob

    JOBS = [GuestJob("leaky", ["kleak", "module", "{leaky.ko}", "--json", "report.json"])]

    def test_leaky(guest: Guest) -> None:
        result = guest["leaky"]
        assert result.status == 1
        report = json.loads(result.file("report.json").read_text())

The jobs of all selected tests run in one boot of each kernel, in the order of the tests. A job that
does not leave the guest as it found it must say so.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from kleak.vm.boot import Result, boot
from kleak.vm.kernels import release_of
from tests.support import guest_jobs
from tests.support.build_modules import TOP, build_all

BOOT_ALLOWANCE_S = 300.0


@dataclass(frozen=True, slots=True)
class GuestJob:
    """A command to run in the guest.

    The first word "kleak" or "python" means this tree's; ``{NAME.ko}`` in a word becomes the path
    of that module, built for the kernel, and ``{release}`` the kernel's release. The command runs
    in an empty directory of its own, whose files come back, with ``environment`` added to this
    process's. It is killed after ``timeout_s``, which must allow for emulation. One that
    ``spoils`` the guest, by leaving a module or memory behind, runs after all that do not.
    """

    name: str
    argv: Sequence[str]
    timeout_s: float = 450.0
    environment: dict[str, str] = field(default_factory=dict)
    spoils: bool = False


@dataclass(frozen=True, slots=True)
class GuestResult:
    """What became of a job. ``status`` is None at the time limit, -N for signal N."""

    status: int | None
    seconds: float
    stdout: str
    stderr: str
    directory: Path

    def file(self, name: str) -> Path:
        """Return the path of a file that the job wrote into its directory."""
        return self.directory / "files" / name


@dataclass(frozen=True, slots=True)
class Guest:
    """A boot that is over, and what became of its jobs."""

    kernel: Path
    modules: dict[str, Path]
    directory: Path
    result: Result

    @property
    def release(self) -> str:
        """The kernel's release."""
        return release_of(self.kernel)

    def __getitem__(self, name: str) -> GuestResult:
        """Return the result of the job ``name``; fail the test if the guest did not live to it."""
        place = self.directory / name
        if not place.is_dir():
            pytest.fail(f"no test module declares a job {name!r} in JOBS")
        if not (place / "result.json").exists():
            self._fail(name)
        result = json.loads((place / "result.json").read_text(encoding="utf-8"))
        stdout, stderr = (
            (place / stream).read_text(encoding="utf-8", errors="replace")
            for stream in ("stdout", "stderr")
        )
        return GuestResult(result["status"], result["seconds"], stdout, stderr, place)

    def _fail(self, name: str) -> NoReturn:
        reached = self.result.stdout.decode(errors="replace").splitlines()
        pytest.fail(
            f"{self.release}: no result of job {name!r}; {self.result.failure}; "
            f"last was {reached[-1] if reached else 'nothing'!r}\n"
            + self.result.stderr.decode(errors="replace")
            + "\n".join(self.result.console_tail[-40:])
        )


def run_jobs(kernel: Path, jobs: Sequence[GuestJob], cancelled: threading.Event) -> Guest:
    """Build all modules for ``kernel``, boot it once, and run ``jobs`` in it.

    ``cancelled``, set from another thread, ends that.
    """
    modules = build_all(kernel)
    directory = TOP / "build" / "vm" / release_of(kernel)
    if directory.exists():
        shutil.rmtree(directory)
    for job in jobs:
        (directory / job.name / "files").mkdir(parents=True)
    described = [
        {
            "name": job.name,
            "argv": _argv(job, kernel, modules),
            "environment": job.environment,
            "timeout_s": job.timeout_s,
        }
        for job in sorted(jobs, key=lambda job: job.spoils)
    ]
    (directory / "jobs.json").write_text(json.dumps(described), encoding="utf-8")
    result = boot(
        kernel,
        [sys.executable, "-I", guest_jobs.__file__, str(directory)],
        rw_dirs=[directory],
        cwd=TOP,
        timeout_s=BOOT_ALLOWANCE_S + sum(job.timeout_s for job in jobs),
        cancelled=cancelled,
    )
    (directory / "console").write_text("\n".join(result.console_tail), encoding="utf-8")
    return Guest(kernel, modules, directory, result)


def _argv(job: GuestJob, kernel: Path, modules: dict[str, Path]) -> list[str]:
    def module(match: re.Match[str]) -> str:
        if match.group(1) not in modules:
            pytest.fail(f"job {job.name!r}: nothing builds {match.group(1)}")
        return str(modules[match.group(1)])

    words = [
        re.sub(r"\{([\w-]+\.ko)\}", module, word).replace("{release}", release_of(kernel))
        for word in job.argv
    ]
    if words[0] == "kleak":
        return [sys.executable, "-m", "kleak", *words[1:]]
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    return words
