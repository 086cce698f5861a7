"""Sessions for tests of what is saved and shown: captured ones, and made ones that are nasty."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kleak.analysis import suppressions
from kleak.analysis.judge import judge
from kleak.analysis.merge import Judged, merge, site_id, site_keys
from kleak.model.report import Report
from kleak.model.session import (
    Allocation,
    Answer,
    Circumstances,
    Cycle,
    CycleTally,
    Frame,
    Kernel,
    MemorySample,
    PointersTo,
    Reachability,
    Session,
    Setting,
    Source,
    StackSample,
    Tally,
    Target,
    TracedSite,
    Trust,
    VmallocRegion,
)
from kleak.model.witnesses import USED, absent, refused
from kleak.render.renderer import Capture, Material
from kleak.store.reader import read_session
from tests.support.paths import TESTS
from tests.support.samples import KERNFS, LEAK, session, site, stack

FILES = TESTS / "data" / "sessions"
HOSTILE = "<script>document.title='ran'</script>\"'><img src=x onerror=\"document.title='ran'\">"
"""What a module may be called. The kernel takes any name of up to 55 characters; text of the
log and of a process may be longer."""


def saved_files() -> list[Path]:
    """The captured sessions, of every version of the schema. An empty list is an error."""
    found = sorted(FILES.glob("v*/*.kleak"))
    if not found:
        raise AssertionError(f"no session in {FILES}")
    return found


def everything(*, cycles: int = 2, finished: bool = True) -> Session:
    """A session with a value in every field, the awkward ones included."""
    tallies = tuple(
        CycleTally(Tally(7 + i, 700 + i), Tally(2, 200)) if i != 1 else CycleTally(Tally(), Tally())
        for i in range(cycles)
    )
    top = 0xFFFFFFFFFFFFFFFF
    return Session(
        Kernel("6.12.1", "x86_64", "00ff", 16384),
        Target("module", "leaky", "/lib/leaky.ko", ("a=1", "b=x y"), "1.0", "abcd"),
        tuple(
            Cycle(
                i + 1,
                10 * i,
                None if i + 1 == cycles else 10 * i + 5,
                "failed" if i else None,
                "leaky" if i else None,
            )
            for i in range(cycles)
        ),
        (
            TracedSite(
                "kmalloc",
                (
                    Frame(None, "__kmalloc", 5),
                    Frame("leaky", "f", 28, Source("f.c", 12)),
                    Frame("leaky", None, 7),
                    Frame(None, None, top),
                ),
                tallies,
                99,
                (
                    Allocation(top, 64, 60, 5, 1, 331, "insmod"),
                    Allocation(0xFF16DA7F83215600, 64, 61, 6, 2, 332, "udev\x1b[2J"),
                ),
                Reachability(1, 2, 3, 4, 5, 6),
                StackSample(Frame("leaky", "f", 28, Source("f.c", 12)), 97, 3, 61),
                PointersTo(9, 5, 3, (("maple_node+16", 2), ("stack of a task", 1))),
            ),
            TracedSite("vmalloc", LEAK, tallies, None, ()),
        ),
        Trust(
            {"a": 1},
            {"b": 2},
            {"frees": 3},
            {"kfree": "fentry"},
            {"growth": USED, "x": refused("é")},
            ("one", "two"),
        ),
        (VmallocRegion(0xFFFFC90000000000, 8192, None, "VM_ALLOC", "f+0x1/0x2"),),
        Circumstances(
            "0.1.0",
            "host",
            1795400000.5,
            123456789,
            ("leaky",),
            cycles if finished else 7,
            finished,
            {"leaky": "abcd", "other": "ef"},
            (Setting("/proc/sys/kernel/kptr_restrict", "0", "1", True),),
            (
                MemorySample(1, "start", 0, Tally(), {"Slab": 4096, "MemFree": 1 << 40}),
                MemorySample(2, "settled", 1, Tally(3, 300), {}),
            ),
            (Answer("vmallocinfo", 77, "0xffffc90000000000-0xffffc90000002000 8192 f+0x1/0x2\n"),),
        ),
    )


def hostile() -> Session:
    """A session whose every name tries to get out of the format that shows it."""
    bad = HOSTILE + "\x1b]0;owned\x07\u202e;#|`\n</title></style>--!><!--{{7*7}}${7*7}"
    frames = (LEAK[0], Frame(bad, bad, 1, Source(bad, 3)), Frame(bad, "ordinary", 9))
    made = session(
        site([3] * 5, frames=frames, sampled=2),
        site([1] * 5, frames=KERNFS, allocator="=cmd|' /C calc'!A0"),
        target=Target("module", bad, bad, (bad,), bad, bad),
        lost={bad: 3},
    )
    return replace(
        made,
        kernel=Kernel(bad, bad, bad),
        trust=Trust(
            {bad: 3}, {bad: 1}, {bad: 1}, {bad: bad}, {bad: absent(bad), "growth": USED}, (bad,)
        ),
        circumstances=replace(
            everything().circumstances,
            kleak_version=bad,
            host=bad,
            scope=(bad,),
            build_ids={bad: bad},
            samples=tuple(MemorySample(i, bad, i, Tally(i, i), {bad: i + 1}) for i in range(3)),
        ),
    )


def material(*sessions: Session, names: tuple[str, ...] = ()) -> Material:
    """What the renderers get for these sessions, as ``kleak report`` makes it."""
    judged = [
        Judged(names[i] if names else f"session-{i}.kleak", one, judge(one))
        for i, one in enumerate(sessions)
    ]
    captures = tuple(
        Capture(one.name, one.session, one.report, tuple(site_id(key) for key in keys))
        for one, keys in zip(judged, site_keys(judged), strict=True)
    )
    return Material(merge(judged), captures)


def empty() -> Session:
    """A session in which nothing was outstanding."""
    return session(cycles=5)


def standing() -> Material:
    """Of a leak, what hangs on it, and one that is suppressed: places in that order, by bytes."""
    outer = "leaky_init+0x40 [leaky] <- do_one_initcall+0x58"
    record = site([3] * 5, frames=stack(f"record+0x1 [leaky] a.c:12 <- {outer}"), sampled=15)
    name = site([3] * 5, frames=stack(f"name+0x2 [leaky] a.c:15 <- {outer}"), sampled=15)
    known = site([2] * 5, frames=stack(f"known+0x3 [leaky] b.c:7 <- {outer}"))
    name = replace(
        name, kept=[one._replace(allocated_at_ns=one.allocated_at_ns + 1) for one in name.kept]
    )
    pointers = "".join(
        f"{holder.address:#x} 8 {child.address:#x}\n"
        for holder, child in zip(record.kept, name.kept, strict=True)
    )
    about = Circumstances(answers=(Answer("pointers", 7, pointers),))
    made = material(replace(session(record, name, known), circumstances=about))
    rules = suppressions.parse("leak:^known$\n", "known.supp")
    (capture,) = made.captures
    report = suppressions.apply(made.report, rules)
    return Material(report, (replace(capture, report=suppressions.apply(capture.report, rules)),))


def samples() -> dict[str, Material]:
    """All that every renderer must show, by name."""
    found = {path.stem: material(read_session(path)) for path in saved_files()}
    leaky = [read_session(path) for path in saved_files() if path.stem.endswith("--leaky")]
    found["merged"] = material(*leaky)
    found["standing"] = standing()
    found["everything"] = material(everything())
    found["hostile"] = material(hostile())
    found["empty"] = material(empty())
    found["lossy"] = material(session(site([3] * 5), lost={"missed_kfree_events": 7}))
    return found


def total_bytes(report: Report) -> int:
    """Outstanding bytes of all sites."""
    return sum(one.outstanding.size_bytes for one in report.sites)
