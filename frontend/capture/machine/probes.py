"""What the files of /proc and /sys say this machine allows. Only reads; takes its root path."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from kleak.capture.engine.page_events import MEMORY_LAYOUT
from kleak.model.doctor import BOTH, MODULE, Check, Subject

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
AS_ROOT = "sudo kleak doctor"
_REFUSED = frozenset({errno.EACCES, errno.EPERM})

_NOTHING = "nothing can be traced"
_NO_MAIN_JOB = "the main job, kleak module, cannot run"
ROOT = Subject("privilege", "root", _NOTHING, BOTH)
LOCKDOWN = Subject("privilege", "lockdown", "programs may not read the kernel's memory", BOTH)
UNPRIVILEGED_BPF = Subject("privilege", "unprivileged BPF")
MODULE_LOADING = Subject("modules", "module loading", _NO_MAIN_JOB, (MODULE,))
KMOD = Subject("modules", "kmod", _NO_MAIN_JOB, (MODULE,))
STACK_DEPTH = Subject("engine", "stack depth", _NOTHING, BOTH)
KALLSYMS = Subject("addresses", "kallsyms", "functions have no names", BOTH)
KPTR_RESTRICT = Subject("addresses", "kptr_restrict", "vmalloc regions cannot be joined by address")
VMALLOCINFO = Subject("witnesses", "vmallocinfo", "one witness of vmalloc leaks fewer")
DEBUGFS = Subject("mounts", "debugfs", "kmemleak and page_owner are behind it")
TRACEFS = Subject("mounts", "tracefs", "kleak's programs do without it")
KMEMLEAK = Subject("witnesses", "kmemleak", "no word from the kernel's own leak detector")
PAGE_OWNER = Subject(
    "witnesses", "page_owner", "pages that come from no traced event have no stack"
)
ALLOCATION_PROFILING = Subject(
    "witnesses", "allocation profiling", "no totals by source line from the kernel itself"
)
KCORE = Subject(
    "witnesses", "/proc/kcore", "the objects that are left cannot be looked at with drgn or crash"
)


def examine_machine(root: Path = Path("/")) -> Iterator[Check]:
    """Look at privilege, modules, addresses and the witnesses that the kernel offers."""
    yield _privilege(root)
    yield _lockdown(root)
    yield _unprivileged_bpf(root)
    yield from examine_module_loading(root)
    yield _stack_depth(root)
    yield _kallsyms(root)
    yield _kptr_restrict(root)
    yield _vmallocinfo(root)
    yield _mounted(DEBUGFS, root, "/sys/kernel/debug")
    yield _mounted(TRACEFS, root, "/sys/kernel/tracing")
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


def _has(root: Path, capability: str) -> bool:
    return bool(int(_status(root, "CapEff") or "0", 16) >> _CAPABILITIES[capability] & 1)


def _is_root(root: Path) -> bool:
    user = _status(root, "Uid").split()
    return len(user) > 1 and user[1] == "0"


def _privilege(root: Path) -> Check:
    if not _is_root(root):
        return ROOT.no("not root", AS_ROOT)
    missing = [name for name in _CAPABILITIES if not _has(root, name)]
    if not missing:
        return ROOT.yes("root, with all capabilities that are used")
    return ROOT.degraded(
        f"root without {', '.join(missing)}",
        "run it outside the container",
        effect="some of what follows is refused (a container?)",
    )


def _lockdown(root: Path) -> Check:
    text = _read(root / "sys/kernel/security/lockdown")
    if text is None:
        return LOCKDOWN.yes("the kernel says nothing of it (/sys/kernel/security/lockdown)")
    mode = text.partition("[")[2].partition("]")[0]
    if mode == "none":
        return LOCKDOWN.yes(mode)
    if mode == "confidentiality":
        # LOCKDOWN_BPF_READ_KERNEL of kernel/trace/bpf_trace.c.
        return LOCKDOWN.no(mode, "boot without lockdown=confidentiality")
    return LOCKDOWN.degraded(
        mode,
        "boot without lockdown=integrity, or without secure boot",
        effect="only signed modules load",
    )


def _unprivileged_bpf(root: Path) -> Check:
    value = _read(root / "proc/sys/kernel/unprivileged_bpf_disabled")
    found = f"unprivileged_bpf_disabled = {value}" if value else "there is no such sysctl"
    return UNPRIVILEGED_BPF.yes(found, "kleak runs as root: no difference")


def examine_module_loading(root: Path = Path("/")) -> Iterator[Check]:
    """Look at whether modules can be loaded, and with what."""
    if not (root / "proc/modules").exists():
        yield MODULE_LOADING.no("a kernel without modules", ANOTHER_KERNEL)
    elif _read(root / "proc/sys/kernel/modules_disabled") == "1":
        yield MODULE_LOADING.no("modules_disabled = 1", "reboot: it cannot be taken back")
    elif not _has(root, "CAP_SYS_MODULE"):
        yield MODULE_LOADING.no("no CAP_SYS_MODULE", AS_ROOT)
    elif _read(root / "sys/module/module/parameters/sig_enforce") == "Y":
        yield MODULE_LOADING.degraded(
            "sig_enforce = Y",
            "boot without module.sig_enforce",
            effect="only modules with a signature that this kernel trusts load",
        )
    else:
        yield MODULE_LOADING.yes("allowed")
    missing = [tool for tool in ("insmod", "modprobe", "rmmod") if shutil.which(tool) is None]
    if missing:
        yield KMOD.no(f"no {', '.join(missing)}", "apt-get install kmod")
    else:
        yield KMOD.yes("insmod, modprobe, rmmod")


def _stack_depth(root: Path) -> Check:
    text = _read(root / "proc/sys/kernel/perf_event_max_stack")
    depth = int(text) if text else 0
    if depth == 0:
        return STACK_DEPTH.no("no kernel.perf_event_max_stack", "a kernel with CONFIG_PERF_EVENTS")
    if depth < _FULL_STACK:
        return STACK_DEPTH.degraded(
            f"{depth} frames",
            f"sysctl -w kernel.perf_event_max_stack={_FULL_STACK}",
            effect="longer stacks are cut, and may look out of scope",
        )
    return STACK_DEPTH.yes(f"{depth} frames")


def _kallsyms(root: Path) -> Check:
    path = root / "proc/kallsyms"
    try:
        with path.open() as symbols:
            # Per-CPU symbols of x86-64 come first, at small addresses from 0 on.
            shown = any(line.split(maxsplit=1)[0].strip("0") for line in symbols)
    except OSError as error:
        return KALLSYMS.no(f"/proc/kallsyms: {error.strerror}", "a kernel with CONFIG_KALLSYMS")
    if shown:
        return KALLSYMS.yes("real addresses")
    if _read(root / "proc/sys/kernel/kptr_restrict") == "2" and _is_root(root):
        effect = "kleak sets it for the moment of a read"
        return KALLSYMS.yes("real ones once kptr_restrict is 1", effect)
    return KALLSYMS.no("the kernel hides addresses", f"{AS_ROOT} (CAP_SYSLOG)")


def _kptr_restrict(root: Path) -> Check:
    value = _read(root / "proc/sys/kernel/kptr_restrict")
    if value is None:
        return KPTR_RESTRICT.no("there is no such sysctl")
    if value == "1":
        return KPTR_RESTRICT.yes("1: root reads real addresses")
    found = f"{value}: /proc/vmallocinfo has no real addresses"
    if _is_root(root) and not _read_only(root, "proc/sys"):
        effect = "kleak sets 1 for the moment of a read, and puts it back"
        return KPTR_RESTRICT.yes(found, effect)
    return KPTR_RESTRICT.degraded(found, "sysctl -w kernel.kptr_restrict=1")


def _read_only(root: Path, directory: str) -> bool:
    for line in (_read(root / "proc/mounts") or "").splitlines():
        _, at, _, options, *_ = line.split()
        if at == f"/{directory}" and "ro" in options.split(","):
            return True
    return False


def _vmallocinfo(root: Path) -> Check:
    try:
        with (root / "proc/vmallocinfo").open() as report:
            report.readline()
    except OSError as error:
        mend = AS_ROOT if error.errno in _REFUSED else ""
        return VMALLOCINFO.no(f"/proc/vmallocinfo: {error.strerror}", mend)
    return VMALLOCINFO.yes("readable")


def _mounts(root: Path) -> dict[str, str]:
    """Type of file system -> where it is mounted, of /proc/mounts."""
    mounts: dict[str, str] = {}
    for line in (_read(root / "proc/mounts") or "").splitlines():
        _, at, kind, *_ = line.split()
        mounts.setdefault(kind, at)
    return mounts


def _mounted(subject: Subject, root: Path, usual: str) -> Check:
    """Look at whether the file system of that name is mounted; usually it is at ``usual``."""
    kind = subject.name
    at = _mounts(root).get(kind)
    if at is not None:
        return subject.yes(f"on {at}")
    return subject.no("not mounted", f"mount -t {kind} {kind} {usual}")


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


def examine_kmemleak(root: Path = Path("/")) -> Check:
    """Look at whether kmemleak can be asked."""
    if "kmemleak_alloc" not in _symbols_there(root):
        return KMEMLEAK.no("not built into this kernel", "a kernel with CONFIG_DEBUG_KMEMLEAK")
    if "debugfs" not in _mounts(root):
        return KMEMLEAK.no(
            "built in, but debugfs is not mounted", "mount -t debugfs debugfs /sys/kernel/debug"
        )
    if not (root / "sys/kernel/debug/kmemleak").exists():
        return KMEMLEAK.no(
            "it gave up (see dmesg)",
            "boot with kmemleak=on, and a larger CONFIG_DEBUG_KMEMLEAK_MEM_POOL_SIZE",
        )
    # Nothing that can be read says whether it is on; its thread runs while it scans by itself
    # (kmemleak_late_init() of mm/kmemleak.c).
    if any(_read(comm) == "kmemleak" for comm in (root / "proc").glob("[0-9]*/comm")):
        return KMEMLEAK.yes("on, scanning every ten minutes")
    return KMEMLEAK.degraded(
        "built in; no scan thread: off, or told not to scan by itself", "boot with kmemleak=on"
    )


def examine_page_owner(root: Path = Path("/")) -> Check:
    """Look at whether page_owner can be asked."""
    unknown = not _symbols_there(root).issuperset(MEMORY_LAYOUT)
    mend = "boot with page_owner=on"
    if (root / "sys/kernel/debug/page_owner").exists():
        if not unknown:
            return PAGE_OWNER.yes("on")
        found, mend = "on", ""
    elif "__set_page_owner" not in _symbols_there(root):
        found = "not built into this kernel"
        mend = "a kernel with CONFIG_PAGE_OWNER, booted with page_owner=on"
    else:
        found = "off" if "debugfs" in _mounts(root) else "not to be seen: debugfs is not mounted"
    if unknown:
        found += "; and the kernel does not tell where it maps pages"
    return PAGE_OWNER.no(found, mend)


def examine_allocation_profiling(root: Path = Path("/")) -> Check:
    """Look at whether /proc/allocinfo says anything."""
    if not (root / "proc/allocinfo").exists():
        return ALLOCATION_PROFILING.no(
            "not built into this kernel",
            "a kernel with CONFIG_MEM_ALLOC_PROFILING (6.10 and later)",
        )
    value = _read(root / "proc/sys/vm/mem_profiling")
    if value in ("1", None):  # without sysctl it cannot be switched off
        return ALLOCATION_PROFILING.yes("on")
    return ALLOCATION_PROFILING.degraded(
        f"vm.mem_profiling = {value}", "boot with sysctl.vm.mem_profiling=1"
    )


def _kcore(root: Path) -> Check:
    try:
        with (root / "proc/kcore").open("rb") as kcore:
            magic = kcore.read(4)
    except OSError as error:
        mend = AS_ROOT if error.errno in _REFUSED else "a kernel with CONFIG_PROC_KCORE"
        return KCORE.no(str(error.strerror), mend)
    if magic != b"\x7fELF":
        return KCORE.no("not an ELF image")
    return KCORE.yes("readable")
