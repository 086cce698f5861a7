"""/proc/modules: the loaded modules.

    leaky 12288 0 - Live 0xffffffffc071a000 (OE)
    x_tables 65536 3 xt_tcpudp,xt_conntrack,nft_compat, Live 0xffffffffc0a01000
    dummy 24576 1 - Loading 0xffffffffc0b20000 (+)

Printed by m_show() and print_unload_info() in kernel/module/procfs.c (up to 5.18 in
kernel/module.c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers.errors import ParseError

_LINE = re.compile(
    r"(?P<name>\S+) (?P<size>\d+) (?P<references>-?\d+|-) (?P<users>\S+) "
    r"(?P<state>Live|Loading|Unloading) 0x(?P<address>[0-9a-f]+)(?: \((?P<flags>[^)]*)\))?"
)


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """One line of /proc/modules.

    ``size_bytes`` is the sum of all its memory regions, which are one contiguous block only up
    to Linux 6.3. ``address`` is where its text begins; 0 if the reader may not see addresses.
    ``reference_count`` is None on kernels that cannot unload modules; -1 while it unloads.
    ``used_by`` are the modules that use this one ("[permanent]" for one that has no exit).
    ``state`` is "Live", "Loading" or "Unloading". ``flags`` are the taint letters, then "+"
    while it loads or "-" while it unloads.
    """

    name: str
    size_bytes: int
    reference_count: int | None
    used_by: tuple[str, ...]
    state: str
    address: int
    flags: str


def parse_modules(text: str) -> tuple[LoadedModule, ...]:
    """Parse /proc/modules, in its order.

    Raises ParseError, with the line, where a line is not one that m_show() prints.
    """
    modules = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _LINE.fullmatch(line.rstrip())
        if found is None:
            raise ParseError("not a line of /proc/modules", number, line)
        references, users = found["references"], found["users"]
        modules.append(
            LoadedModule(
                name=found["name"],
                size_bytes=int(found["size"]),
                reference_count=None if references == "-" else int(references),
                used_by=() if users == "-" else tuple(filter(None, users.split(","))),
                state=found["state"],
                address=int(found["address"], 16),
                flags=found["flags"] or "",
            )
        )
    return tuple(modules)
