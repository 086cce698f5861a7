"""What the running kernel says of itself: symbols, modules, vmalloc regions."""

from __future__ import annotations

import os
from pathlib import Path

from kleak.capture.machine import real_addresses
from kleak.capture.modules import loaded_modules
from kleak.errors import UnsupportedError
from kleak.model import Kernel, VmallocRegion
from kleak.parsers import vmallocinfo
from kleak.parsers.code_location import AddressKind
from kleak.parsers.kallsyms import HiddenAddressesError
from kleak.symbols.kernel_table import KernelTable

_KALLSYMS = Path("/proc/kallsyms")
_VMALLOCINFO = Path("/proc/vmallocinfo")


def read_kernel() -> Kernel:
    """Return which kernel is running."""
    name = os.uname()
    return Kernel(name.release, name.machine)


def read_kernel_table() -> KernelTable:
    """Return a snapshot of the kernel's symbols. Raises UnsupportedError where it hides them."""
    with real_addresses():
        try:
            return KernelTable(_KALLSYMS.read_bytes(), loaded_modules().values())
        except HiddenAddressesError as error:
            raise UnsupportedError(
                "the kernel hides the addresses of its symbols: kleak needs CAP_SYSLOG"
            ) from error
        except FileNotFoundError as error:
            raise UnsupportedError("this kernel has no /proc/kallsyms (CONFIG_KALLSYMS)") from error


def read_vmalloc_regions() -> tuple[VmallocRegion, ...] | str:
    """Return the regions of /proc/vmallocinfo, or why there are none with real addresses."""
    try:
        with real_addresses(), _VMALLOCINFO.open("rb") as report:
            regions = list(vmallocinfo.stream(report, errors="collect", problems=[]))
    except OSError as error:
        return f"{_VMALLOCINFO}: {error.strerror}"
    if any(region.address_kind is not AddressKind.REAL for region in regions):
        return f"{_VMALLOCINFO} gives no real addresses here (lockdown, or no CAP_SYSLOG)"
    return tuple(
        VmallocRegion(
            region.start,
            region.size_bytes,
            region.pages,
            region.kind,
            None if region.caller is None else str(region.caller),
        )
        for region in regions
        if region.start is not None
    )
