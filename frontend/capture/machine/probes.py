"""What the files of /proc and /sys say this machine allows. Only reads; takes its root path."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from kleak.capture.engine.page_events import MEMORY_LAYOUT
from kleak.model.doctor import BOTH, MODULE, Finding, State

# Bits of include/uapi/linux/capability.h.
_CAPABILITIES = {
    "CAP_SYS_MODULE": 16,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
_FULL_STACK = 127
# They tell what was built in.
_SYMBOLS = ("kmemleak_alloc", "__set_page_owner", *MEMORY_LAYOUT)
ANOTHER_KERNEL = "kleak vm --kernel 6.12 -- module ..."


def examine_machine(root: Path = Path("/")) -> Iterator[Finding]:
    """Look at privilege, modules, addresses and the witnesses that the kernel offers."""
    yield _privilege(root)
    yield _lockdown(root)
    yield _unprivileged_bpf(root)
    yield from examine_module_loading(root)
    yield _stack_depth(root)
    yield _kallsyms(root)
    yield _kptr_restrict(root)
    yield _vmallocinfo(root)
    mounts = _mounts(root)
    yield _mounted(mounts, "debugfs", "/sys/kernel/debug", "kmemleak and page_owner are behind it")
    yield _mounted(mounts, "tracefs", "/sys/kernel/tracing", "kleak's programs do without it")
    yield examine_kmemleak(root)
    yield examine_page_owner(root)
    yield examine_allocation_profiling(root)
    yield _kcore(root)


def _read(path: Path) -> str | None:
    """Return the text of a small file, None where it is absent or refused."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _status(root: Path, field: str) -> str:
    for line in (_read(root / "proc/self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return ""


def _privilege(root: Path) -> Finding:
    user = _status(root, "Uid").split()
    effective = int(_status(root, "CapEff") or "0", 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if len(user) < 2 or user[1] != "0":
        return Finding(
            "privilege",
            "root",
            State.NO,
            "not root",
            "nothing can be traced",
            "sudo kleak doctor",
            BOTH,
        )
    if missing:
        return Finding(
            "privilege",
            "root",
            State.DEGRADED,
            f"root without {', '.join(missing)}",
            "some of what follows is refused (a container?)",
            "run it outside the container",
        )
    return Finding("privilege", "root", State.YES, "root, with all capabilities that are used")


def _lockdown(root: Path) -> Finding:
    text = _read(root / "sys/kernel/security/lockdown")
    if text is None:
        found = "the kernel says nothing of it (/sys/kernel/security/lockdown)"
        return Finding("privilege", "lockdown", State.YES, found)
    mode = text.partition("[")[2].partition("]")[0]
    if mode == "none":
        return Finding("privilege", "lockdown", State.YES, "none")
    if mode == "confidentiality":
        # LOCKDOWN_BPF_READ_KERNEL of kernel/trace/bpf_trace.c.
        return Finding(
            "privilege",
            "lockdown",
            State.NO,
            mode,
            "programs may not read the kernel's memory",
            "boot without lockdown=confidentiality",
            BOTH,
        )
    return Finding(
        "privilege",
        "lockdown",
        State.DEGRADED,
        mode,
        "only signed modules load",
        "boot without lockdown=integrity, or without secure boot",
    )


def _unprivileged_bpf(root: Path) -> Finding:
    value = _read(root / "proc/sys/kernel/unprivileged_bpf_disabled")
    found = f"unprivileged_bpf_disabled = {value}" if value else "there is no such sysctl"
    return Finding(
        "privilege", "unprivileged BPF", State.YES, found, "kleak runs as root: no difference"
    )


def examine_module_loading(root: Path = Path("/")) -> Iterator[Finding]:
    """Look at whether modules can be loaded, and with what."""
    no = "the main job, kleak module, cannot run"
    if not (root / "proc/modules").exists():
        yield Finding(
            "modules",
            "module loading",
            State.NO,
            "a kernel without modules",
            no,
            ANOTHER_KERNEL,
            (MODULE,),
        )
    elif _read(root / "proc/sys/kernel/modules_disabled") == "1":
        yield Finding(
            "modules",
            "module loading",
            State.NO,
            "modules_disabled = 1",
            no,
            "reboot: it cannot be taken back",
            (MODULE,),
        )
    elif not int(_status(root, "CapEff") or "0", 16) >> _CAPABILITIES["CAP_SYS_MODULE"] & 1:
        yield Finding(
            "modules",
            "module loading",
            State.NO,
            "no CAP_SYS_MODULE",
            no,
            "sudo kleak doctor",
            (MODULE,),
        )
    elif _read(root / "sys/module/module/parameters/sig_enforce") == "Y":
        yield Finding(
            "modules",
            "module loading",
            State.DEGRADED,
            "sig_enforce = Y",
            "only modules with a signature that this kernel trusts load",
            "boot without module.sig_enforce",
        )
    else:
        yield Finding("modules", "module loading", State.YES, "allowed", needed_by=(MODULE,))
    missing = [tool for tool in ("insmod", "modprobe", "rmmod") if shutil.which(tool) is None]
    if missing:
        yield Finding(
            "modules",
            "kmod",
            State.NO,
            f"no {', '.join(missing)}",
            no,
            "apt-get install kmod",
            (MODULE,),
        )
    else:
        yield Finding("modules", "kmod", State.YES, "insmod, modprobe, rmmod", needed_by=(MODULE,))


def _stack_depth(root: Path) -> Finding:
    text = _read(root / "proc/sys/kernel/perf_event_max_stack")
    depth = int(text) if text else 0
    if depth == 0:
        return Finding(
            "engine",
            "stack depth",
            State.NO,
            "no kernel.perf_event_max_stack",
            "nothing can be traced",
            "a kernel with CONFIG_PERF_EVENTS",
            BOTH,
        )
    if depth < _FULL_STACK:
        return Finding(
            "engine",
            "stack depth",
            State.DEGRADED,
            f"{depth} frames",
            "longer stacks are cut, and may look out of scope",
            f"sysctl -w kernel.perf_event_max_stack={_FULL_STACK}",
        )
    return Finding("engine", "stack depth", State.YES, f"{depth} frames", needed_by=BOTH)


def _kallsyms(root: Path) -> Finding:
    path = root / "proc/kallsyms"
    try:
        with path.open() as symbols:
            # Per-CPU symbols of x86-64 come first, at small addresses from 0 on.
            shown = any(line.split(maxsplit=1)[0].strip("0") for line in symbols)
    except OSError as error:
        return Finding(
            "addresses",
            "kallsyms",
            State.NO,
            f"/proc/kallsyms: {error.strerror}",
            "functions have no names",
            "a kernel with CONFIG_KALLSYMS",
            BOTH,
        )
    if shown:
        return Finding("addresses", "kallsyms", State.YES, "real addresses", needed_by=BOTH)
    if _read(root / "proc/sys/kernel/kptr_restrict") == "2" and _is_root(root):
        return Finding(
            "addresses",
            "kallsyms",
            State.YES,
            "real ones once kptr_restrict is 1",
            "kleak sets it for the moment of a read",
            needed_by=BOTH,
        )
    return Finding(
        "addresses",
        "kallsyms",
        State.NO,
        "the kernel hides addresses",
        "functions have no names",
        "sudo kleak doctor (CAP_SYSLOG)",
        BOTH,
    )


def _is_root(root: Path) -> bool:
    user = _status(root, "Uid").split()
    return len(user) > 1 and user[1] == "0"


def _kptr_restrict(root: Path) -> Finding:
    name = "kptr_restrict"
    value = _read(root / "proc/sys/kernel/kptr_restrict")
    if value is None:
        return Finding(
            "addresses",
            name,
            State.NO,
            "there is no such sysctl",
            "vmalloc regions cannot be joined by address",
        )
    if value == "1":
        return Finding("addresses", name, State.YES, "1: root reads real addresses")
    found = f"{value}: /proc/vmallocinfo has no real addresses"
    if _is_root(root) and not _read_only(root, "proc/sys"):
        return Finding(
            "addresses",
            name,
            State.YES,
            found,
            "kleak sets 1 for the moment of a read, and puts it back",
        )
    return Finding(
        "addresses",
        name,
        State.DEGRADED,
        found,
        "vmalloc regions cannot be joined by address",
        "sysctl -w kernel.kptr_restrict=1",
    )


def _read_only(root: Path, directory: str) -> bool:
    for line in (_read(root / "proc/mounts") or "").splitlines():
        _, at, _, options, *_ = line.split()
        if at == f"/{directory}" and "ro" in options.split(","):
            return True
    return False


def _vmallocinfo(root: Path) -> Finding:
    try:
        with (root / "proc/vmallocinfo").open() as report:
            report.readline()
    except OSError as error:
        means = "one witness of vmalloc leaks fewer"
        mend = "sudo kleak doctor" if error.errno in (errno.EACCES, errno.EPERM) else ""
        found = f"/proc/vmallocinfo: {error.strerror}"
        return Finding("witnesses", "vmallocinfo", State.NO, found, means, mend)
    return Finding("witnesses", "vmallocinfo", State.YES, "readable")


def _mounts(root: Path) -> dict[str, str]:
    """Type of file system -> where it is mounted, of /proc/mounts."""
    mounts: dict[str, str] = {}
    for line in (_read(root / "proc/mounts") or "").splitlines():
        _, at, kind, *_ = line.split()
        mounts.setdefault(kind, at)
    return mounts


def _mounted(mounts: dict[str, str], kind: str, usual: str, means: str) -> Finding:
    if kind in mounts:
        return Finding("mounts", kind, State.YES, f"on {mounts[kind]}")
    return Finding(
        "mounts", kind, State.NO, "not mounted", means, f"mount -t {kind} {kind} {usual}"
    )


@cache
def _symbols_there(root: Path) -> frozenset[str]:
    """Those of _SYMBOLS that the kernel itself has. Names are never hidden, addresses may be.

    The kernel takes 40 ms to list all its symbols, so it is asked once.
    """
    try:
        listed = (root / "proc/kallsyms").read_bytes()
    except OSError:
        return frozenset()
    return frozenset(name for name in _SYMBOLS if f" {name}\n".encode() in listed)


def examine_kmemleak(root: Path = Path("/")) -> Finding:
    """Look at whether kmemleak can be asked."""
    means = "no word from the kernel's own leak detector"
    if "kmemleak_alloc" not in _symbols_there(root):
        return Finding(
            "witnesses",
            "kmemleak",
            State.NO,
            "not built into this kernel",
            means,
            "a kernel with CONFIG_DEBUG_KMEMLEAK",
        )
    if "debugfs" not in _mounts(root):
        return Finding(
            "witnesses",
            "kmemleak",
            State.NO,
            "built in, but debugfs is not mounted",
            means,
            "mount -t debugfs debugfs /sys/kernel/debug",
        )
    if not (root / "sys/kernel/debug/kmemleak").exists():
        return Finding(
            "witnesses",
            "kmemleak",
            State.NO,
            "it gave up (see dmesg)",
            means,
            "boot with kmemleak=on, and a larger CONFIG_DEBUG_KMEMLEAK_MEM_POOL_SIZE",
        )
    # Nothing that can be read says whether it is on; its thread runs while it scans by itself
    # (kmemleak_late_init() of mm/kmemleak.c).
    if any(_read(comm) == "kmemleak" for comm in (root / "proc").glob("[0-9]*/comm")):
        return Finding("witnesses", "kmemleak", State.YES, "on, scanning every ten minutes")
    return Finding(
        "witnesses",
        "kmemleak",
        State.DEGRADED,
        "built in; no scan thread: off, or told not to scan by itself",
        means,
        "boot with kmemleak=on",
    )


def examine_page_owner(root: Path = Path("/")) -> Finding:
    """Look at whether page_owner can be asked."""
    means = "pages that come from no traced event have no stack"
    unknown = not _symbols_there(root).issuperset(MEMORY_LAYOUT)
    mend = "boot with page_owner=on"
    if (root / "sys/kernel/debug/page_owner").exists():
        if not unknown:
            return Finding("witnesses", "page_owner", State.YES, "on")
        found, mend = "on", ""
    elif "__set_page_owner" not in _symbols_there(root):
        found = "not built into this kernel"
        mend = "a kernel with CONFIG_PAGE_OWNER, booted with page_owner=on"
    else:
        found = "off" if "debugfs" in _mounts(root) else "not to be seen: debugfs is not mounted"
    if unknown:
        found += "; and the kernel does not tell where it maps pages"
    return Finding("witnesses", "page_owner", State.NO, found, means, mend)


def examine_allocation_profiling(root: Path = Path("/")) -> Finding:
    """Look at whether /proc/allocinfo says anything."""
    name, means = "allocation profiling", "no totals by source line from the kernel itself"
    if not (root / "proc/allocinfo").exists():
        return Finding(
            "witnesses",
            name,
            State.NO,
            "not built into this kernel",
            means,
            "a kernel with CONFIG_MEM_ALLOC_PROFILING (6.10 and later)",
        )
    value = _read(root / "proc/sys/vm/mem_profiling")
    if value in ("1", None):  # without sysctl it cannot be switched off
        return Finding("witnesses", name, State.YES, "on")
    return Finding(
        "witnesses",
        name,
        State.DEGRADED,
        f"vm.mem_profiling = {value}",
        means,
        "boot with sysctl.vm.mem_profiling=1",
    )


def _kcore(root: Path) -> Finding:
    means = "the objects that are left cannot be looked at with drgn or crash"
    path = root / "proc/kcore"
    try:
        with path.open("rb") as kcore:
            magic = kcore.read(4)
    except OSError as error:
        mend = (
            "sudo kleak doctor"
            if error.errno in (errno.EACCES, errno.EPERM)
            else ("a kernel with CONFIG_PROC_KCORE")
        )
        return Finding("witnesses", "/proc/kcore", State.NO, str(error.strerror), means, mend)
    if magic != b"\x7fELF":
        return Finding("witnesses", "/proc/kcore", State.NO, "not an ELF image", means)
    return Finding("witnesses", "/proc/kcore", State.YES, "readable")
