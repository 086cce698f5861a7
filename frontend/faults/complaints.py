"""What the kernel logs when something is wrong with it, whatever failed before."""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST_LINES = 60
"""Lines of the log that are kept of a complaint: the trace of an oops has some 50."""

_DEADLY = re.compile(
    r"Oops: |Oops\b.*\[#\d+\]|kernel BUG at |general protection fault|"
    r"BUG: unable to handle|BUG: kernel NULL pointer|stack-protector: |Kernel panic|"
    r"Unable to handle kernel |Internal error: "
)
_COMPLAINS = re.compile(
    r"BUG: |WARNING: |BUG \S+ \(|INFO: task .* blocked for more than|INFO: rcu.* detected|"
    r"refcount_t: |list_(?:add|del) corruption|UBSAN: |kobject: .*is not initialized|"
    r"sysfs: cannot create duplicate|ODEBUG: |DEBUG_LOCKS_WARN_ON|watchdog: BUG|"
    r"possible circular locking|Trying to vfree|Slab .*: redzone overwritten"
)


def complaints(records: str) -> tuple[str, bool]:
    """Return what ``records`` of /dev/kmsg complain of, from the first such line on, and whether
    the kernel killed a task for it. "" and False where nothing is wrong.
    """
    lines = list(_texts(records.splitlines()))
    for number, line in enumerate(lines):
        if _DEADLY.search(line) or _COMPLAINS.search(line):
            kept = lines[number : number + MOST_LINES]
            deadly = any(_DEADLY.search(one) for one in lines[number:])
            return "\n".join(kept), deadly
    return "", False


def headline(log: str) -> str:
    """The line of a complaint that says most: the first that names what is wrong."""
    lines = log.splitlines()
    return next((one for one in lines if _DEADLY.search(one)), lines[0] if lines else "")


def _texts(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        if line.startswith(" "):  # a property of the record before, as " SUBSYSTEM=pci"
            continue
        _, found, text = line.partition(";")
        yield text if found else line
