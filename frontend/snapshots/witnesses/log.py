"""Kernel log lines as suspects: what the kernel itself found left over."""

from __future__ import annotations

from collections.abc import Sequence

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Frame, Source, Tally
from kleak.parsers import kmsg
from kleak.snapshots.places import Places
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.suspects import Suspect
from kleak.wording import plural

WITNESS = "kernel log"


def judge(snapshots: Sequence[Snapshot]) -> list[Suspect]:
    """Suspects from the last log: it holds what the earlier ones hold."""
    log = _last_log(snapshots)
    suspects = []
    callers = {
        line.cache: f", by {line.caller}"
        for line in log
        if isinstance(line, kmsg.CacheNotEmpty) and line.caller is not None
    }
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
            noun = plural(count, "object") if count else "some objects"
            says = (
                f"cache {line.cache} was destroyed with {noun} in it{callers.get(line.cache, '')}"
            )
            suspects.append(
                Suspect(
                    allocator=f"cache {line.cache}",
                    frames=(),
                    outstanding=Tally(count, 0),
                    findings=(Finding(WITNESS, Fact.KERNEL_SAYS, says),),
                    cache=line.cache,
                )
            )
    destroyed = {suspect.cache for suspect in suspects}
    for line in log:
        if isinstance(line, kmsg.CacheNotEmpty) and line.cache not in destroyed:
            destroyed.add(line.cache)
            by = "" if line.caller is None else f", by {line.caller}"
            suspects.append(
                Suspect(
                    allocator=f"cache {line.cache}",
                    frames=(),
                    outstanding=Tally(),
                    findings=(
                        Finding(
                            WITNESS,
                            Fact.KERNEL_SAYS,
                            f"cache {line.cache} was destroyed with objects in it{by}",
                        ),
                    ),
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
        often = "once" if times == 1 else f"{times} times"
        found.append(
            f"kernel log: unregister_netdevice waited for {device} {often}: a reference to "
            f"it was not dropped (usage count {count})"
        )
    return found


def judge_references(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """Who holds references to a device that could not go: by the tracker, or by the waiting.

    The kernel waits 10 s before it says so for the first time: a slow owner may still let go. A
    second line is 20 s, and a tracker that names who took the reference needs none.
    """
    suspects = []
    tracked = next((shot.references for shot in reversed(snapshots) if shot.references), ())
    for reference in tracked:
        frames = places.frames(reference.frames)
        own = next((i for i, frame in enumerate(frames) if frame.module is not None), 0)
        says = (
            f"{reference.users} of {reference.total} references to {reference.name} were taken "
            "here and not given back"
        )
        suspects.append(
            Suspect(
                allocator="reference",
                frames=frames[own:],
                outstanding=Tally(reference.users, 0),
                findings=(Finding("ref_tracker", Fact.KERNEL_SAYS, says),),
                allocator_frames=frames[:own],
            )
        )
    if suspects:
        return suspects
    waits: dict[str, list[int]] = {}
    for line in _last_log(snapshots):
        if isinstance(line, kmsg.NetdeviceWaiting):
            waits.setdefault(line.device, []).append(line.usage_count)
    for device, counts in waits.items():
        if len(counts) < 2:
            continue
        held = counts[-1] > 0 and counts[-1] >= counts[0]
        says = (
            f"unregister_netdevice waited for {device} {len(counts)} times, at last with usage "
            f"count {counts[-1]}"
        )
        fact = Fact.KERNEL_SAYS if held else Fact.ONE_STEP
        suspects.append(
            Suspect(f"reference to {device}", (), Tally(), (Finding(WITNESS, fact, says),))
        )
    return suspects


def _last_log(snapshots: Sequence[Snapshot]) -> tuple[kmsg.Witness, ...]:
    return next((shot.log for shot in reversed(snapshots) if shot.log is not None), ())
