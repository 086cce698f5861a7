"""What the running kernel says of itself: symbols, modules, vmalloc regions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from kleak.capture.machine.settings import real_addresses
from kleak.errors import UnsupportedError
from kleak.model.session import Kernel, VmallocRegion
from kleak.model.witnesses import USED, WitnessState, absent, refused
from kleak.parsers import vmallocinfo
from kleak.parsers.code_location import AddressKind
from kleak.parsers.elf_notes import parse_build_id
from kleak.parsers.kallsyms import HiddenAddressesError
from kleak.parsers.proc_modules import LoadedModule, parse_modules
from kleak.symbols.kernel_table import KernelTable

_KALLSYMS = Path("/proc/kallsyms")
_MODULES = Path("/proc/modules")
_VMALLOCINFO = Path("/proc/vmallocinfo")
_NOTES = Path("/sys/kernel/notes")


def read_kernel() -> Kernel:
    """Return which kernel is running."""
    name = os.uname()
    build_id = parse_build_id(_NOTES.read_bytes()) if _NOTES.exists() else None
    return Kernel(name.release, name.machine, build_id, os.sysconf("SC_PAGESIZE"))


def loaded_modules() -> dict[str, LoadedModule]:
    """Return the loaded modules by name; empty on a kernel without modules."""
    if not _MODULES.exists():
        return {}
    return {module.name: module for module in parse_modules(_MODULES.read_text())}


def read_kernel_table() -> KernelTable:
    """Return a snapshot of the kernel's symbols. Raises UnsupportedError where it hides them."""
    with real_addresses("0"):  # of symbols and modules 2 alone hides them from CAP_SYSLOG
        try:
            return KernelTable(_KALLSYMS.read_bytes(), loaded_modules().values())
        except HiddenAddressesError as error:
            raise UnsupportedError(
                "the kernel hides the addresses of its symbols: kleak needs CAP_SYSLOG"
            ) from error
        except FileNotFoundError as error:
            raise UnsupportedError("this kernel has no /proc/kallsyms (CONFIG_KALLSYMS)") from error


@dataclass(frozen=True, slots=True)
class VmallocReport:
    """What /proc/vmallocinfo said. ``regions`` is None where it gave no real addresses, or could
    not be read; ``state`` is then why. ``text`` is None where it could not be read.
    """

    regions: tuple[VmallocRegion, ...] | None
    state: WitnessState
    text: str | None


def read_vmalloc_regions() -> VmallocReport:
    """Read /proc/vmallocinfo, with real addresses where the kernel gives them."""
    try:
        with real_addresses():
            report = _VMALLOCINFO.read_bytes()
    except OSError as error:
        return VmallocReport(None, absent(f"{_VMALLOCINFO}: {error.strerror}"), None)
    text = report.decode(errors="replace")
    regions = list(vmallocinfo.stream(BytesIO(report), errors="collect", problems=[]))
    if any(region.address_kind is not AddressKind.REAL for region in regions):
        why = refused(f"{_VMALLOCINFO} gives no real addresses here (lockdown, or no CAP_SYSLOG)")
        return VmallocReport(None, why, text)
    return VmallocReport(
        tuple(
            VmallocRegion(
                region.start,
                region.size_bytes,
                region.pages,
                region.kind,
                None if region.caller is None else str(region.caller),
            )
            for region in regions
            if region.start is not None
        ),
        USED,
        text,
    )


def pid_namespaces_below_proc() -> int:
    """Return how many pid namespaces this process is in below the one whose ids /proc shows.

    0 where /proc was mounted in its own, or the kernel has none (CONFIG_PID_NS).
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) - 2
    return 0
