"""Waiting until the frees that come late are through.

After an unload, memory may still be on its way back: handed to kfree_rcu or call_rcu, to a work
item, kept in a cache of dentries. Until that is over, an outstanding allocation is no finding.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kleak.progress import Progress

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_RCU_BARRIER = Path("/sys/module/rcutree/parameters/do_rcu_barrier")

_SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_MEMBARRIER_CMD_GLOBAL = 1

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds.

    ``quiet``: nothing may change for so long. ``least``: wait so long while anything is
    outstanding. ``most``: give up.
    """

    quiet: float
    least: float
    most: float


BETWEEN_CYCLES = Patience(quiet=0.3, least=0.0, most=5.0)
AT_THE_END = Patience(quiet=1.0, least=2.0, most=30.0)
# kfree_rcu collects for 5 s (KFREE_DRAIN_JIFFIES since commit 51824b780b71 ("rcu/kvfree: Update
# KFREE_DRAIN_JIFFIES interval"), v6.1; 20 ms before), then waits for a grace period.
# Where what is given to it is not seen, it is gone only then.
AT_THE_END_OF_BATCHES = Patience(quiet=1.0, least=7.0, most=30.0)


def push_deferred_frees() -> None:
    """Hurry the kernel's deferred frees. Needs root.

    drop_caches=2 runs all shrinkers: that of kfree_rcu queues its batches at once, those of
    dentries and inodes drop what nothing uses. What it queued needs a grace period more. Changes
    no setting. (The kernel logs a line for each write; the bit that silences it would stay set.)
    """
    _drop_slab_caches()
    wait_for_grace_period()
    _run_rcu_barrier()
    _drop_slab_caches()
    _run_rcu_barrier()


def settle(
    outstanding: Callable[[], int], patience: Patience, progress: Progress, doing: str
) -> float:
    """Push deferred frees and wait until ``outstanding()`` stays the same.

    ``doing`` is what to show for it. Returns the seconds that it took. Never raises for
    impatience: what is outstanding at the end is the result.
    """
    start = time.monotonic()
    push_deferred_frees()
    before, changed_at = outstanding(), time.monotonic()
    pushed_again = False
    while True:
        now = time.monotonic()
        elapsed = now - start
        progress.say(f"{doing}: unused caches dropped, waiting for late frees ({elapsed:.0f} s)")
        quiet = now - changed_at >= patience.quiet
        if before == 0 or (quiet and elapsed >= patience.least) or elapsed >= patience.most:
            return elapsed
        if not pushed_again and elapsed >= patience.least / 2 > 0:
            push_deferred_frees()
            pushed_again = True
        time.sleep(_POLL_SECONDS)
        current = outstanding()
        if current != before:
            before, changed_at = current, time.monotonic()


def _drop_slab_caches() -> None:
    _write(_DROP_CACHES, "2")


def _run_rcu_barrier() -> None:
    # Kernels from 6.8 on let user space ask for rcu_barrier(): the file is there or it is not.
    if _RCU_BARRIER.exists():
        _write(_RCU_BARRIER, "1")


def wait_for_grace_period() -> None:
    """Wait until all that ran under RCU in the kernel has ended, programs among it."""
    number = _SYS_MEMBARRIER.get(platform.machine())
    # Refused (EINVAL) under nohz_full: then time must do.
    if number is None or ctypes.CDLL(None).syscall(number, _MEMBARRIER_CMD_GLOBAL, 0, 0):
        time.sleep(_POLL_SECONDS)


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def patience_at_the_end(*, sees_kfree_rcu: bool) -> Patience:
    """Return how long to wait at last, by whether memory given to kfree_rcu() is seen to go."""
    return AT_THE_END if sees_kfree_rcu else AT_THE_END_OF_BATCHES
