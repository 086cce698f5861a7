"""Kernel log lines as suspects: what the kernel itself found left over."""

from __future__ import annotations

from collections.abc import Sequence

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Frame, Source, Tally
from kleak.parsers import kmsg
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.suspects import Suspect

WITNESS = "kernel log"


def judge(snapshots: Sequence[Snapshot]) -> list[Suspect]:
    """Suspects from the last log: it holds what the earlier ones hold."""
    log = _last_log(snapshots)
    suspects = []
    for line in log:
        if isinstance(line, kmsg.LeftAtUnload):
            source = Source(line.file, line.source_line)
            says = f"{line.size_bytes} B of this line were left when {line.module} was unloaded"
            suspects.append(
                Suspect(
                    allocator="allocation",
                    frames=(Frame(line.module, line.function, 0, source),),
                    outstanding=Tally(0, line.size_bytes),
                    findings=(Finding(WITNESS, Fact.KERNEL_SAYS, says),),
                )
            )
        elif isinstance(line, kmsg.ObjectsRemaining):
            count = len(line.object_addresses)
            noun = "1 object" if count == 1 else f"{count or 'some'} objects"
            says = f"cache {line.cache} was destroyed with {noun} in it"
            suspects.append(
                Suspect(
                    allocator=f"cache {line.cache}",
                    frames=(),
                    outstanding=Tally(count, 0),
                    findings=(Finding(WITNESS, Fact.KERNEL_SAYS, says),),
                    cache=line.cache,
                )
            )
    return suspects


def notes(snapshots: Sequence[Snapshot]) -> list[str]:
    """Sentences on the witness lines that name no allocation site."""
    waiting: dict[str, tuple[int, int]] = {}
    found = []
    for line in _last_log(snapshots):
        if isinstance(line, kmsg.NetdeviceWaiting):
            times = waiting.get(line.device, (0, 0))[0] + 1
            waiting[line.device] = (times, line.usage_count)
        elif isinstance(line, kmsg.ModuleStillAlive):
            found.append(f"kernel log: allocations of module {line.module} outlived it")
        elif isinstance(line, kmsg.KmemleakDisabled):
            found.append("kernel log: kmemleak was disabled; it sees nothing since")
    for device, (times, count) in waiting.items():
        found.append(
            f"kernel log: unregister_netdevice waited for {device} {times} times: a reference to "
            f"it was not dropped (usage count {count})"
        )
    return found


def _last_log(snapshots: Sequence[Snapshot]) -> tuple[kmsg.Witness, ...]:
    return next((shot.log for shot in reversed(snapshots) if shot.log is not None), ())
