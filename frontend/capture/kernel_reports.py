"""What the kernel says of itself before the first cycle and after the last, and its log between.

The session keeps it word for word (of /proc/allocinfo the rows that hold anything); what it means
for a site is the business of kleak.analysis.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from kleak.capture.kernel_log import KernelLog
from kleak.capture.registered_names import list_names
from kleak.model import Answer

_ALLOCINFO = Path("/proc/allocinfo")
_PROFILING = Path("/proc/sys/vm/mem_profiling")
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
    reply = _read(_ALLOCINFO, "not built in")
    if reply.text is None:
        return reply
    if _PROFILING.exists() and _PROFILING.read_text().strip() != "1":
        return _Reply(None, "switched off (vm.mem_profiling)")
    rows = (row for row in reply.text.splitlines(keepends=True) if not row.startswith(_ZERO))
    return _Reply("".join(rows))


_ZERO = f"{0:>12} {0:>8} "  # alloc_tag_to_text() of lib/alloc_tag.c: "%12lli %8llu "


def _read_slabinfo() -> _Reply:
    return _read(_SLABINFO, "not in this kernel")


def _read_names() -> _Reply:
    return _Reply(list_names(), "too many names, or none")


_ASKED_TWICE: tuple[tuple[str, Callable[[], _Reply]], ...] = (
    ("allocinfo", _read_allocinfo),
    ("slabinfo", _read_slabinfo),
    ("registered names", _read_names),
)


class KernelReports:
    """Asks the kernel. Use as a context around the cycles; entering it takes the first answers."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self._log = KernelLog()
        self._before: list[Answer] = []
        self._zones: list[Answer] = []
        self._following = False
        self.states: dict[str, str] = {}

    def __enter__(self) -> KernelReports:
        """Ask for the first time. The log is followed from here on."""
        self._following = True
        self._log.__enter__()
        self._before = self._ask()
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
        after = self._ask()
        log = self._log.read()
        self.states["kernel log"] = self._log.state
        said = [] if log is None else [Answer("kernel log", time.monotonic_ns(), log)]
        return (*self._before, *self._zones, *after, *said)

    def _ask(self) -> list[Answer]:
        answers = []
        for witness, read in _ASKED_TWICE:
            reply = read()
            if reply.text is None:
                self.states[witness] = f"absent: {reply.why}"
            else:
                self.states[witness] = "used"
                answers.append(Answer(witness, time.monotonic_ns(), reply.text))
        return answers
