"""Who can be asked besides the ledger, and what came of asking. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

WITNESSES: Mapping[str, str] = {
    "outstanding": "the tracer's ledger of what was not freed",
    "growth": "the same ledger, cycle by cycle",
    "vmallocinfo": "/proc/vmallocinfo with real addresses",
    "kmemleak": "whether anything points to an object",
    "pointers": "/proc/kcore: which kept objects hold the addresses of others",
    "reachability": "a search of the kernel's memory for what points to what is outstanding",
    "page_owner": "who has a page now",
    "origins": "what BTF and the symbols say of the functions between allocator and target",
    "kernel log": "/dev/kmsg from the start of the capture to its end",
    "allocinfo": "/proc/allocinfo before and after",
    "slabinfo": "/proc/slabinfo before and after",
    "registered names": "names in /proc, debugfs, slab and of devices, before and after",
    "meminfo": "/proc/meminfo at every quiet moment",
    "alloc_traces": "SLUB's user tracking, in snapshots",
}
"""Every witness there is, by its name in reports, and what it is asked for."""


class Outcome(Enum):
    """What came of asking a witness; the value is the word in reports and files."""

    USED = "used"
    INCOMPLETE = "incomplete"
    ABSENT = "absent"
    REFUSED = "refused"
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class WitnessState:
    """What came of asking one witness, and why, where it was not used."""

    outcome: Outcome
    why: str = ""

    def __str__(self) -> str:
        """As reports and files have it: "used", "absent: not in this kernel"."""
        return f"{self.outcome.value}: {self.why}" if self.why else self.outcome.value

    @property
    def used(self) -> bool:
        """Whether the witness takes part, with all that it had to say."""
        return self.outcome is Outcome.USED

    @classmethod
    def parse(cls, text: str) -> WitnessState:
        """Read what ``str()`` wrote. Anything else is why the witness is absent, as older files
        have it.
        """
        word, _, why = text.partition(": ")
        for outcome in Outcome:
            if word == outcome.value and (why or not text.endswith(": ")):
                return cls(outcome, why)
        return cls(Outcome.ABSENT, text)


USED = WitnessState(Outcome.USED)


def incomplete(why: str) -> WitnessState:
    """It takes part, but some of what it had to say was lost."""
    return WitnessState(Outcome.INCOMPLETE, why)


def absent(why: str = "") -> WitnessState:
    """The machine does not have it, or has nothing to compare."""
    return WitnessState(Outcome.ABSENT, why)


def refused(why: str) -> WitnessState:
    """The machine has it and did not let us."""
    return WitnessState(Outcome.REFUSED, why)


def not_asked(why: str) -> WitnessState:
    """The user did not want it, or there was no moment for it."""
    return WitnessState(Outcome.NOT_ASKED, why)
