"""A throwaway virtual machine with this machine's file system, through virtme-ng.

virtme-ng's ``virtme-run`` starts qemu with a kernel and exports the host's root read-only over
9p, with overlays where programs expect to write. ``vng``, the usual command, is a front-end that
builds a shell string for the same ``virtme-run``; calling it directly keeps names of files out of
a shell.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from kleak.capture.engine.outside import ENVIRONMENT as COMPILE_OUTSIDE
from kleak.errors import UnsupportedError, UsageError
from kleak.vm.kernels import release_of
from kleak.vm.programs import programs_for
from kleak.vm.streams import Console, Output, Sink, reader

BOOT_LIMIT_S = 300.0
"""How long a guest may take until its first program runs. Emulated ones take 15 to 30 s."""

KVM_PROOF_LIMIT_S = 60.0
"""How long the boot that proves KVM may take; one with KVM takes a few seconds."""

POWER_OFF_LIMIT_S = 30.0
"""How long a guest may take to power off once the command's exit status is known."""

SHARED = "/run/kleak"
STDERR_PORT = "kleak.stderr"

_OVERLAYS = ("/etc", "/lib", "/home", "/opt", "/srv", "/usr", "/var", "/tmp")  # noqa: S108
# A thread for each virtual CPU is faster in a guest that is alone, but the kernel may die of the
# int3 that text_poke_bp() puts into code for a moment: seen with qemu 7.2, reported for 8.0.0
# (lore.kernel.org, "qemu-x86_64 booting with 8.0.0 stil see int3", July 2023). Each probe that is
# attached patches code.
_EMULATION = ("-accel", "tcg,thread=single")
# The names that virtme-run looks for, in its order.
_BUSYBOXES = ("busybox-static", "busybox.static", "busybox")
_SYSTEM_PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
_NOT_FOR_THE_GUEST = ("DBUS_SESSION_BUS_ADDRESS", "OLDPWD", "PWD", "TMPDIR", "XDG_RUNTIME_DIR")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a guest.

    ``status`` is the command's exit status (128 + N for signal N), None if the guest ended before
    the command did; ``failure`` then says why in one line. ``stdout`` and ``stderr`` hold what was
    written to them unless the caller took it with sinks of its own. ``console_tail`` are the last
    lines of the guest's console and of qemu's messages.
    """

    status: int | None
    failure: str | None
    stdout: bytes
    stderr: bytes
    console_tail: tuple[str, ...]


def kvm_works(kernel: Path) -> bool:
    """Tell whether ``kernel`` boots with KVM on this machine, by booting it once.

    /dev/kvm that opens proves nothing: inside another virtual machine qemu may fail on a register
    that the outer one does not let it set, or the guest may hang. The answer is remembered for
    this kernel file and this boot of the machine in the user's cache directory.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    stat = kernel.stat()
    name = f"{boot_id} {kernel.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    memory = cache / "kleak/kvm" / hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    if memory.exists():
        return memory.read_text(encoding="ascii").strip() == "works"
    # qemu may fall back to emulation by itself (accel=kvm:tcg), so ask the guest what it runs on.
    proof = boot(
        kernel,
        [
            "grep",
            "-q",
            "kvm-clock",
            "/sys/devices/system/clocksource/clocksource0/available_clocksource",
        ],
        timeout_s=KVM_PROOF_LIMIT_S,
        kvm=True,
    )
    works = proof.status == 0
    memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    memory.write_text("works\n" if works else "fails\n", encoding="ascii")
    return works


def boot(
    kernel: Path,
    argv: Sequence[str],
    *,
    rw_dirs: Sequence[Path] = (),
    cwd: Path | None = None,
    timeout_s: float = 1800.0,
    memory: str = "2G",
    cpus: int = 2,
    kvm: bool | None = None,
    terminals: dict[str, tuple[int, int]] | None = None,
    stdout: Sink | None = None,
    stderr: Sink | None = None,
    cancelled: threading.Event | None = None,
) -> Result:
    """Boot ``kernel``, run ``argv`` as root in it, power off, and return what became of it.

    Args:
        kernel: the image; its modules are looked for beside it, as a Debian package lays them out.
        argv: the command. It is handed over in a file, so any argument passes unchanged.
        rw_dirs: directories of the host that the guest may write; the rest is read-only there.
        cwd: where the command runs; this process's directory if not given.
        timeout_s: limit for all of it, boot included; then the guest is killed.
        memory: as qemu takes it, "2G".
        cpus: number of virtual CPUs.
        kvm: whether to use KVM; None finds out.
        terminals: "stdout" and "stderr" mapped to (rows, columns) where the command should see a
            terminal.
        stdout: called with each piece of the command's standard output, from another thread.
        stderr: the same for standard error.
        cancelled: where it is set, from another thread, the guest is killed.

    Raises:
        UsageError: a directory that cannot be shared.
        UnsupportedError: virtme-ng, qemu or a static busybox is missing.
    """
    runner = virtme_run()
    check_busybox(kernel)
    shares = outermost([path.resolve() for path in rw_dirs])
    if kvm is None:
        kvm = kvm_works(kernel)
    out, err = Output(stdout), Output(stderr)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="kleak-vm-") as private:
        shared = Path(private) / "shared"
        shared.mkdir()
        scratch = Path(private) / "scratch"
        scratch.mkdir()
        _write_job(shared, argv, cwd or Path.cwd(), terminals or {})
        orders = shared / "programs"
        orders.mkdir()
        out_end, err_end, console_end = (reader(sink) for sink in (out, err, console))
        try:
            process = subprocess.Popen(
                _command_line(
                    runner, kernel, shared, shares, memory, cpus, kvm=kvm, stderr_fd=err_end.fd
                ),
                stdin=subprocess.DEVNULL,
                stdout=out_end.fd,
                stderr=console_end.fd,
                pass_fds=(err_end.fd,),
                env={**os.environ, "TMPDIR": str(scratch)},
                start_new_session=True,  # a group to kill, and no Ctrl-C of the terminal's own
            )
        finally:
            for end in (out_end, err_end, console_end):
                os.close(end.fd)
        try:
            with programs_for(orders):
                failure = _watch(process, shared, timeout_s, (out, err), cancelled)
        finally:
            _kill_group(process)
            for end in (out_end, err_end, console_end):
                end.thread.join()
        for output in (out, err):
            if output.error is not None:
                raise output.error
        status = _read_status(shared)
    if status is not None:
        failure = None
    elif failure is None:
        failure = console.panic() or "the virtual machine ended before the command did"
    return Result(status, failure, bytes(out.kept), bytes(err.kept), tuple(console.lines))


def virtme_run() -> str:
    """Return the path of virtme-ng's ``virtme-run``: beside this Python, or on PATH.

    Raises UnsupportedError where it or qemu is missing.
    """
    beside = Path(sys.executable).parent / "virtme-run"
    found = str(beside) if beside.exists() else shutil.which("virtme-run")
    if found is None:
        raise UnsupportedError(
            f"virtme-ng is not installed: {shlex.quote(sys.executable)} -m pip install virtme-ng"
        )
    qemu = f"qemu-system-{os.uname().machine}"
    if shutil.which(qemu) is None:
        raise UnsupportedError(f"{qemu} is not installed: apt-get install qemu-system")
    return found


def check_busybox(kernel: Path) -> None:
    """Raise UnsupportedError if ``kernel`` has modules, and the busybox that would load those it
    needs to find its root is one that needs libraries: there are none yet.
    """
    release = release_of(kernel)
    roots = (kernel.parent.parent, Path("/"), Path("/usr"))
    if not any((root / "lib/modules" / release).is_dir() for root in roots):
        return  # nothing to load, or a kernel in its build tree, of which virtme-run knows more
    places = ":".join(filter(None, (os.environ.get("PATH"), _SYSTEM_PATH)))
    found = next(filter(None, (shutil.which(name, path=places) for name in _BUSYBOXES)), None)
    if found is not None and _needs_libraries(Path(found)):
        raise UnsupportedError(
            f"{found} is not statically linked, and a guest cannot begin with it: "
            "apt-get install busybox-static"
        )


def _needs_libraries(program: Path) -> bool:
    with suppress(OSError, ELFError), program.open("rb") as file:
        return any(ELFFile(file).iter_segments("PT_INTERP"))
    return False


def outermost(paths: Sequence[Path]) -> list[Path]:
    """Return the directories to share with a guest: ``paths`` without those inside others.

    Raises UsageError for one that cannot be shared.
    """
    shares: list[Path] = []
    for path in sorted(set(paths)):  # a directory sorts before what is in it
        if path == Path("/"):
            raise UsageError("the root directory cannot be shared with a virtual machine to write")
        if not path.is_dir():
            raise UsageError(f"{path} is not a directory that a virtual machine could write")
        if re.search(r'[="`\s]', str(path)):  # virtme-run puts it on the kernel's command line
            raise UsageError(f"{path}: a name with a space, '=' or a quote cannot be shared")
        if not any(path.is_relative_to(share) for share in shares):
            shares.append(path)
    return shares


def _write_job(
    shared: Path, argv: Sequence[str], cwd: Path, terminals: dict[str, tuple[int, int]]
) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in _NOT_FOR_THE_GUEST
    }
    places = [str(Path(sys.executable).parent), environment.get("PATH", ""), "/usr/local/sbin"]
    environment["PATH"] = ":".join(
        [*filter(None, places), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    )
    environment[COMPILE_OUTSIDE] = f"{SHARED}/programs"
    job = {
        "argv": list(argv),
        "cwd": str(cwd),
        "environment": environment,
        "terminals": {name: terminals.get(name) for name in ("stdout", "stderr")},
    }
    (shared / "job.json").write_text(json.dumps(job), encoding="utf-8")
    guest = Path(__file__).with_name("guest.py")
    (shared / "run").write_text(
        f"exec 2>/dev/virtio-ports/{STDERR_PORT}\n"
        f"exec {shlex.quote(sys.executable)} -I {shlex.quote(str(guest))} {SHARED}\n",
        encoding="utf-8",
    )


def _command_line(
    runner: str,
    kernel: Path,
    shared: Path,
    shares: Sequence[Path],
    memory: str,
    cpus: int,
    *,
    kvm: bool,
    stderr_fd: int,
) -> list[str]:
    home = str(Path.home())
    overlays = [*_OVERLAYS]
    if not any(Path(home).is_relative_to(overlay) for overlay in overlays):
        overlays.append(home)
    return [
        runner,
        f"--kimg={kernel}",
        "--mods=auto",
        # virtiofs and microvm exist only where virtiofsd and KVM do: one way for all machines.
        "--force-9p",
        "--disable-microvm",
        f"--memory={memory}",
        f"--cpus={cpus}",
        *([] if kvm else ["--disable-kvm"]),
        *(f"--overlay-rwdir={path}" for path in overlays if Path(path).is_dir()),
        f"--rwdir={SHARED}={shared}",
        *(f"--rwdir={path}={path}" for path in shares),
        "--show-boot-console",
        "--kopt=loglevel=5",  # warnings; virtme-run's "quiet" would hide why a guest died
        f"--script-sh=exec sh {SHARED}/run",
        # virtme-run gives the script's standard error and the console one file: they need two.
        "--qemu-opts",
        *([] if kvm else _EMULATION),
        *("-chardev", f"file,id=kleakstderr,path=/proc/self/fd/{stderr_fd}"),
        *("-device", "virtio-serial-pci"),
        *("-device", f"virtserialport,name={STDERR_PORT},chardev=kleakstderr"),
    ]


def _watch(
    process: subprocess.Popen[bytes],
    shared: Path,
    timeout_s: float,
    outputs: tuple[Output, Output],
    cancelled: threading.Event | None,
) -> str | None:
    """Wait for the guest to end; return why it has to be killed, or None if it ended."""
    start = time.monotonic()
    ended_at: float | None = None
    while process.poll() is None:
        now = time.monotonic()
        if any(output.error is not None for output in outputs):
            return None
        if cancelled is not None and cancelled.is_set():
            return "cancelled"
        if ended_at is None and os.path.lexists(shared / "status"):
            ended_at = now
        if ended_at is not None:
            if now - ended_at > POWER_OFF_LIMIT_S:
                return "the virtual machine did not power off"
        elif now - start > timeout_s:
            return f"the virtual machine was killed at the time limit of {timeout_s:g} s"
        elif now - start > BOOT_LIMIT_S and not os.path.lexists(shared / "started"):
            return f"the virtual machine did not boot within {BOOT_LIMIT_S:g} s"
        time.sleep(0.1)
    return None


def _read_status(shared: Path) -> int | None:
    """Return the exit status that the guest left, None where it left none.

    Its root may leave anything: a link to a file of this machine, a FIFO, a number without end.
    """
    try:
        fd = os.open(shared / "status", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(fd, "rb") as file:
        text = file.read(8) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    return int(text) if re.fullmatch(rb"\d{1,3}\n?", text) and int(text) < 256 else None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # virtme-run leads the group, qemu is in it; a group that is gone raises ProcessLookupError.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
