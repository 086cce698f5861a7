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
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kleak.capture.engine.headers import kernel_cache
from kleak.errors import UnsupportedError, UsageError

BOOT_LIMIT_S = 300.0
"""How long a guest may take until its first program runs. Emulated ones take 15 to 30 s."""

KVM_PROOF_LIMIT_S = 60.0
"""How long the boot that proves KVM may take; one with KVM takes a few seconds."""

POWER_OFF_LIMIT_S = 30.0
"""How long a guest may take to power off once the command's exit status is known."""

DEV_RELEASE = "-kleak-dev"
"""How the release of the kernel of `make dev-kernel` ends (CONFIG_LOCALVERSION)."""

BUILDER = "builder"
"""Beside a kernel of another suite: the root directory with the compiler for its modules."""

CONSOLE_LINES = 200
SHARED = "/run/kleak"
STDERR_PORT = "kleak.stderr"

_OVERLAYS = ("/etc", "/lib", "/home", "/opt", "/srv", "/usr", "/var", "/tmp")  # noqa: S108
# A thread for each virtual CPU is faster in a guest that is alone, but the kernel may die of the
# int3 that text_poke_bp() puts into code for a moment: seen with qemu 7.2, reported for 8.0.0
# (lore.kernel.org, "qemu-x86_64 booting with 8.0.0 stil see int3", July 2023). Each probe that is
# attached patches code.
_EMULATION = ("-accel", "tcg,thread=single")
_SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_NOT_FOR_THE_GUEST = ("DBUS_SESSION_BUS_ADDRESS", "OLDPWD", "PWD", "TMPDIR", "XDG_RUNTIME_DIR")

Sink = Callable[[bytes], object]


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


# --- kernels ------------------------------------------------------------------------------


def find_kernel(name: str | None = None) -> Path:
    """Return the image to boot for ``name``: an image, a release, or a series such as "6.12".

    Releases and series are looked up in the kernel cache, then in /boot; "dev" is what `make
    dev-kernel` built. Without a name it is the newest of the cache that this machine's compiler
    builds modules for, but for that one, whose debugging makes it slow; or the newest of /boot.

    Raises:
        UsageError: nothing of that name, or it is no kernel image.
        UnsupportedError: no name given, and there is no kernel at all.
    """
    cached = sorted(kernel_cache().glob("[!.]*/boot/vmlinuz-*"))
    installed = sorted(Path("/boot").glob("vmlinuz-*"))
    if name is None:
        usual = [
            image
            for image in cached
            if not release_of(image).endswith(DEV_RELEASE)
            and not (image.parent.parent / BUILDER).exists()
        ]
        for images in (usual, installed):
            if images:
                return max(images, key=lambda image: _release_key(release_of(image))).resolve()
        raise UnsupportedError(
            f"no kernel to boot in {kernel_cache()} or /boot: run 'make setup', or name an image "
            "with --kernel"
        )
    for image in (
        Path(name),
        *kernel_cache().glob(f"{name}/boot/vmlinuz-*" if _is_plain(name) else "\0"),
        Path("/boot") / f"vmlinuz-{name}",
    ):
        if image.is_file():
            if not _is_kernel_image(image):
                raise UsageError(f"--kernel {name}: {image} is not a kernel image that boots")
            return image.resolve()
    known = ", ".join(sorted({release_of(image) for image in (*cached, *installed)})) or "none"
    raise UsageError(f"--kernel {name}: no such image or release (known releases: {known})")


def release_of(image: Path) -> str:
    """Return the release in the name of a kernel image, as Debian names it: vmlinuz-RELEASE."""
    return image.name.removeprefix("vmlinuz-")


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[\w.+~-]+", name) is not None


def _release_key(release: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for part in re.findall(r"\d+|\D+", release)
    ]


def _is_kernel_image(image: Path) -> bool:
    # The boot protocol's magic: x86 "HdrS" at 0x202 (Documentation/arch/x86/boot.rst), arm64
    # "ARM\x64" at 56 (Documentation/arch/arm64/booting.rst).
    with image.open("rb") as file:
        head = file.read(0x206)
    return head[0x202:0x206] == b"HdrS" or head[56:60] == b"ARM\x64"


# --- KVM ----------------------------------------------------------------------------------


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


# --- booting ------------------------------------------------------------------------------


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
        UnsupportedError: virtme-ng or qemu is missing.
    """
    runner = virtme_run()
    shares = outermost([path.resolve() for path in rw_dirs])
    if kvm is None:
        kvm = kvm_works(kernel)
    out, err = _Output(stdout), _Output(stderr)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="kleak-vm-") as private:
        shared = Path(private) / "shared"
        shared.mkdir()
        scratch = Path(private) / "scratch"
        scratch.mkdir()
        _write_job(shared, argv, cwd or Path.cwd(), terminals or {})
        out_end, err_end, console_end = (_reader(sink) for sink in (out, err, console))
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
    outputs: tuple[_Output, _Output],
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
        if ended_at is None and (shared / "status").exists():
            ended_at = now
        if ended_at is not None:
            if now - ended_at > POWER_OFF_LIMIT_S:
                return "the virtual machine did not power off"
        elif now - start > timeout_s:
            return f"the virtual machine was killed at the time limit of {timeout_s:g} s"
        elif now - start > BOOT_LIMIT_S and not (shared / "started").exists():
            return f"the virtual machine did not boot within {BOOT_LIMIT_S:g} s"
        time.sleep(0.1)
    return None


def _read_status(shared: Path) -> int | None:
    try:
        return int((shared / "status").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # virtme-run leads the group, qemu is in it; a group that is gone raises ProcessLookupError.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# --- output -------------------------------------------------------------------------------


class _Output:
    """Hands the pieces of one stream on, or keeps them."""

    def __init__(self, sink: Sink | None) -> None:
        self.kept = bytearray()
        self.error: OSError | None = None
        self._sink = sink

    def feed(self, data: bytes) -> None:
        if self._sink is None:
            self.kept += data
        elif self.error is None:
            try:
                self._sink(data)
            except OSError as error:  # a closed pipe: _watch sees it and ends the guest
                self.error = error


class Console:
    """The last lines of the guest's console, in ``lines``."""

    def __init__(self) -> None:
        """Start with no lines."""
        self.lines: deque[str] = deque(maxlen=CONSOLE_LINES)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the console, which may end anywhere in a line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\t]", "", line.decode("latin-1"))
            if text.strip():
                self.lines.append(text.rstrip())

    def panic(self) -> str | None:
        """Return the panic as one line if the console holds one (kernel/panic.c, panic())."""
        for line in self.lines:
            _, found, reason = line.partition("Kernel panic - not syncing: ")
            if found:
                return f"the guest kernel panicked: {reason.strip()}"
        return None


@dataclass(frozen=True, slots=True)
class _End:
    fd: int
    thread: threading.Thread


def _reader(output: _Output | Console) -> _End:
    """Return the end of a pipe to write to; a thread feeds ``output`` from the other end."""
    source, sink = os.pipe()

    def read() -> None:
        with open(source, "rb", buffering=0) as pipe:
            while data := pipe.read(65536):
                output.feed(data)

    thread = threading.Thread(target=read, name="kleak-vm-output", daemon=True)
    thread.start()
    return _End(sink, thread)
