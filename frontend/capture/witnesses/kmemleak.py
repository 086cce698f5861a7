"""kmemleak, the kernel's own leak detector, driven through a session (mm/kmemleak.c).

It keeps a record of every slab, vmalloc and per-CPU object, and a scan looks through all memory
that it knows for pointers to them. kleak stops its automatic scans for the session, and at the
end asks for scans of its own. It never writes ``clear``: that would turn what kmemleak has
reported before into roots, and hide what hangs on it, for good.

Nothing can be read back of its settings but whether its thread runs. ``scan=off`` and ``scan=on``
end and start that thread and leave the period as it was; the others are not touched.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from kleak.capture.engine.records import LedgerEntry
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.probes import examine_kmemleak
from kleak.capture.machine.settings import held_setting
from kleak.capture.witnesses.gone_modules import GoneModules
from kleak.model.witnesses import USED, WitnessState, absent, not_asked
from kleak.parsers import kmemleak
from kleak.parsers.kmemleak import ObjectState, UnreferencedObject
from kleak.progress import Progress

FILE = Path("/sys/kernel/debug/kmemleak")
_KMSG = Path("/dev/kmsg")
_TIMER_LIST = Path("/proc/timer_list")

MIN_AGE_S = 5.1
"""An object is reported if it was older when a scan began (MSECS_MIN_AGE), and a jiffy."""

RECHECK_S = 1.0
"""What is reported must still be so in a scan this much later."""

ASKED_AT_MOST = 16
"""Objects that are looked up one by one. Each answer is up to 24 lines of the kernel log."""

# Families of the ledger. Per-CPU objects have a tree of their own, in which "dump=" does not look.
_LOOKED_UP = frozenset({"kmalloc", "kmem_cache", "reclaimable_cache", "vmap_area"})


@dataclass(frozen=True, slots=True)
class KmemleakResult:
    """What kmemleak said of the objects that were outstanding.

    ``state``: whether it was asked, or why not. ``unreferenced`` are the objects of this session
    that no scan found a pointer to, by address. ``asked`` are some of the others and what
    kmemleak knows of them, None where it knows no such object. ``own`` are those of them that the
    data of a gone module leads to. ``text`` is its report.
    """

    state: WitnessState
    unreferenced: Mapping[int, UnreferencedObject] = field(default_factory=dict)
    asked: Mapping[int, ObjectState | None] = field(default_factory=dict)
    own: frozenset[int] = frozenset()
    text: str | None = None


NOT_ASKED = KmemleakResult(not_asked("it is asked at the end of a session only"))


class Kmemleak:
    """kmemleak for the length of a session. Use as a context; leaving it puts settings back."""

    def __init__(self, *, wanted: bool) -> None:
        """Prepare. Not ``wanted``: it is left alone, and the result says so."""
        self._way_back = ExitStack()
        self._since = 0
        self._gone: GoneModules | None = None
        self._result: KmemleakResult | None = KmemleakResult(not_asked("--no-kmemleak"))
        self._usable = wanted

    @property
    def result(self) -> KmemleakResult:
        """What it said, or why it said nothing: looked for only now, for that takes a while."""
        if self._result is None:
            self._result = KmemleakResult(absent(examine_kmemleak().found))
        return self._result

    def __enter__(self) -> Kmemleak:
        """Stop the automatic scans, if it works here."""
        if self._usable and not FILE.exists():
            self._usable = False
            self._result = None
        elif self._usable and (why := self._take_over()) is not None:
            self._usable = False
            self._result = KmemleakResult(absent(why))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Start the automatic scans again, if they were on."""
        self._way_back.close()

    def _take_over(self) -> str | None:
        """Return why it cannot be asked, None if it can."""
        try:
            if _scan_thread_runs():
                self._way_back.enter_context(held_setting(FILE, "scan=off", "scan=on"))
            else:
                FILE.write_text("scan=off")  # changes nothing, and is refused where it is off
        except OSError as error:
            if error.errno == errno.EPERM:
                return (
                    "switched off in this kernel (boot with kmemleak=on), or it gave up "
                    "(the kernel log says why)"
                )
            return f"{FILE}: {error.strerror}"
        since = _jiffies()
        if since is None:
            return f"{_TIMER_LIST} does not tell the time of its records"
        self._since, self._gone = since, GoneModules()
        self._result = KmemleakResult(not_asked("the session ended before it was asked"))
        return None

    def ask(
        self,
        tracer: Tracer,
        allocated_until: float,
        progress: Progress,
    ) -> None:
        """Scan until it is sure, and keep what it says in ``result``.

        Nothing may be allocated in scope any more; ``allocated_until`` is when that ended, by
        time.monotonic(). A scan takes seconds, or minutes on a machine with much memory; Ctrl-C
        ends it, and KeyboardInterrupt is raised.
        """
        if not self._usable or self._gone is None:
            return
        try:
            tracer.forget_scratch()
            # A scan only notes what is in an object that is new to it: the next one reports it.
            began = time.monotonic()
            _scan(progress, "first scan")
            _wait(max(began, allocated_until) + MIN_AGE_S, progress)
            text = self._scan_and_read(progress, "second scan")
            found = self._of_this_session(text)
            if found:
                _wait(time.monotonic() + RECHECK_S, progress)
                text = self._scan_and_read(progress, "scan to check")
                again = self._of_this_session(text)
                found = {address: again[address] for address in found if address in again}
            progress.say("kmemleak: asking for what it did not report")
            asked = _look_up(tracer.outstanding(), found)
            own = self._gone.reached(tracer.outstanding()) & asked.keys()
            self._result = KmemleakResult(USED, found, asked, own, text)
        except OSError as error:
            self._result = KmemleakResult(absent(f"it stopped working ({error.strerror})"))

    def _scan_and_read(self, progress: Progress, what: str) -> str:
        _scan(progress, what)
        return FILE.read_bytes().decode(errors="replace")

    def _of_this_session(self, text: str) -> dict[int, UnreferencedObject]:
        """The objects of a report that were allocated since the session began, by address."""
        report = kmemleak.parse(text, errors="collect")
        return {found.address: found for found in report.objects if found.jiffies >= self._since}


def _scan_thread_runs() -> bool:
    """Whether automatic scans are on: they are a kernel thread (kmemleak_scan_thread())."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            # Field 4 of stat, behind the name in brackets, is the parent: kthreadd is process 2.
            name, _, rest = (directory / "stat").read_text(errors="replace").rpartition(")")
        except OSError:  # it has ended
            continue
        if name.endswith("(kmemleak") and rest.split()[1] == "2":
            return True
    return False


def _jiffies() -> int | None:
    """The kernel's clock as kmemleak prints it, None where the kernel does not show it."""
    try:
        found = re.search(r"^jiffies: (\d+)$", _TIMER_LIST.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _scan(progress: Progress, what: str) -> None:
    """Let it scan. Raises OSError where it refuses.

    In a process of its own, since the write returns when the scan is over, and a scan ends early
    if whoever asked for it gets a signal.
    """
    start = time.monotonic()
    with subprocess.Popen(
        ["/bin/sh", "-c", 'echo scan >"$0"', str(FILE)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as scan:
        try:
            while scan.poll() is None:
                elapsed = time.monotonic() - start
                progress.say(f"kmemleak: {what} ({elapsed:.0f} s; --no-kmemleak does without)")
                time.sleep(0.05)
        except BaseException:
            scan.kill()
            raise
    if scan.returncode != 0:
        raise OSError(errno.EPERM, "it refuses to scan")


def _wait(until: float, progress: Progress) -> None:
    while (left := until - time.monotonic()) > 0:
        progress.say(f"kmemleak: waiting until all objects are old enough ({left:.0f} s)")
        time.sleep(min(left, 0.1))


def _look_up(
    outstanding: Iterable[LedgerEntry], reported: Mapping[int, UnreferencedObject]
) -> dict[int, ObjectState | None]:
    """Ask for one object of each stack of which it reported none, those with most bytes first."""
    sizes: defaultdict[int, int] = defaultdict(int)
    first: dict[int, int] = {}
    named = set()
    for entry in outstanding:
        if entry.address in reported:
            named.add(entry.stack)
        elif entry.family in _LOOKED_UP:
            sizes[entry.stack] += entry.size_bytes
            first.setdefault(entry.stack, entry.address)
    stacks = sorted(first.keys() - named, key=lambda stack: -sizes[stack])
    try:
        log = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return {}
    asked: dict[int, ObjectState | None] = {}
    try:
        for stack in stacks[:ASKED_AT_MOST]:
            address = first[stack]
            os.lseek(log, 0, os.SEEK_END)
            if not _dump(address):
                asked[address] = None
            elif (state := kmemleak.parse_dump(_read_log(log), address)) is not None:
                asked[address] = state
    finally:
        os.close(log)
    return asked


def _dump(address: int) -> bool:
    """Let it print an object into the kernel log. Returns False where it knows no such object."""
    try:
        FILE.write_text(f"dump={address:#x}")
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def _read_log(log: int) -> str:
    """The messages of the kernel log from where ``log`` stands, a line each."""
    messages: list[str] = []
    while True:
        try:
            # One record a read: "priority,number,time,flags;message", then lines of a dictionary.
            record = os.read(log, 8192).decode(errors="replace")
        except BlockingIOError:
            return "\n".join(messages)
        except BrokenPipeError:  # a record was overwritten; the next read goes on behind it
            continue
        messages.append(record.partition(";")[2].partition("\n")[0])
