"""What the kernel says of itself before the first cycle and after the last, and its log between.

The session keeps it word for word (of /proc/allocinfo the rows that hold anything); what it means
for a site is the business of kleak.analysis.

What is compared before and after tells of a leak only if the modules under test are gone at both
times: one that is there holds memory and names by right, and gives them back when it goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from kleak.capture.machine.kernel_state import loaded_modules
from kleak.capture.machine.probes import examine_allocation_profiling
from kleak.capture.witnesses.kernel_log import KernelLog
from kleak.capture.witnesses.registered_names import list_names
from kleak.model.doctor import State
from kleak.model.session import Answer
from kleak.model.witnesses import USED, absent, not_asked

_ALLOCINFO = Path("/proc/allocinfo")
_SLABINFO = Path("/proc/slabinfo")
_ZONEINFO = Path("/proc/zoneinfo")


@dataclass(frozen=True, slots=True)
class _Reply:
    """The text of a report, or why there is none."""

    text: str | None
    why: str = ""


def _read(path: Path, missing: str) -> _Reply:
    try:
        return _Reply(path.read_text(errors="backslashreplace"))
    except FileNotFoundError:
        return _Reply(None, missing)
    except OSError as error:
        return _Reply(None, f"{path}: {error.strerror}")


def _read_allocinfo() -> _Reply:
    profiling = examine_allocation_profiling()
    if profiling.state is not State.YES:
        return _Reply(None, profiling.found)
    reply = _read(_ALLOCINFO, "gone")
    if reply.text is None:
        return reply
    rows = (row for row in reply.text.splitlines(keepends=True) if not row.startswith(_ZERO))
    return _Reply("".join(rows))


_ZERO = f"{0:>12} {0:>8} "  # alloc_tag_to_text() of lib/alloc_tag.c: "%12lli %8llu "


def _read_slabinfo() -> _Reply:
    return _read(_SLABINFO, "not in this kernel")


def _read_names() -> _Reply:
    return _Reply(list_names(), "too many names, or none")


_ASKED_TWICE: dict[str, Callable[[], _Reply]] = {
    "allocinfo": _read_allocinfo,
    "slabinfo": _read_slabinfo,
    "registered names": _read_names,
}
_NOT_ASKED = not_asked("nothing to compare: not before and after")


class KernelReports:
    """Asks the kernel. Use as a context around the cycles; entering it takes the first answers.

    ``states`` maps each witness to what came of asking it, as in :class:`kleak.model.Trust`.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        """Nothing is asked yet. ``modules`` are the names of those that come and go."""
        self._modules = frozenset(modules)
        self._log = KernelLog()
        self._before: dict[str, Answer] = {}
        self._zones: list[Answer] = []
        self._following = False
        self.states = dict.fromkeys((*_ASKED_TWICE, "kernel log"), _NOT_ASKED)

    def __enter__(self) -> KernelReports:
        """Ask for the first time. The log is followed from here on."""
        self._following = True
        self._log.__enter__()
        self._before = self._ask("before", _ASKED_TWICE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop following the log."""
        self._following = False
        self._log.__exit__(kind, error, trace)

    def follow(self, zones_at_ns: int | None) -> None:
        """Read on in the log; at ``zones_at_ns``, if it is such a moment, /proc/zoneinfo too."""
        if not self._following:
            return
        self._log.read()
        if zones_at_ns is not None:
            zones = _read(_ZONEINFO, "not in this kernel")
            if zones.text is not None:
                self._zones.append(Answer("zoneinfo", zones_at_ns, zones.text))

    def answers(self) -> tuple[Answer, ...]:
        """Ask again, and return the first answers, these, and the log. Sets ``states``.

        Outside of the context there is nothing to compare with: then nothing is asked.
        """
        if not self._following:
            return ()
        after = self._ask("after", self._before)
        log = self._log.read()
        self.states["kernel log"] = self._log.state
        said = [] if log is None else [Answer("kernel log", time.monotonic_ns(), log)]
        return (*self._before.values(), *self._zones, *after.values(), *said)

    def _ask(self, when: str, witnesses: Iterable[str]) -> dict[str, Answer]:
        """Ask ``witnesses``, and note what came of it; those that answered, by name."""
        there = self._modules & loaded_modules().keys()
        answers = {}
        for witness in witnesses:
            reply = _ASKED_TWICE[witness]()
            # The reading takes a while, in which somebody else may load one.
            there |= self._modules & loaded_modules().keys()
            if there:
                reply = _Reply(None, f"{', '.join(sorted(there))} was loaded {when} the cycles")
            if reply.text is None:
                self.states[witness] = absent(reply.why)
            else:
                self.states[witness] = USED
                answers[witness] = Answer(witness, time.monotonic_ns(), reply.text)
        return answers
