"""Proves .ci/provision on a bare Debian 12, from nothing to a found leak.

debootstrap makes a root of the smallest variant, with Debian's kernel, systemd and sudo. In a
chroot of it an ordinary user runs .ci/provision. Then qemu boots it with its own kernel, and
the user runs .ci/provision again, which fetches the headers of the kernel that runs now over the
guest's network, builds examples/leaky, and finds its leaks with the main job. This is what `vagrant
up` and the first commands after it do, without Vagrant. docs/decisions.md says why not all of it
happens in the guest.

Root is needed, and the packages debootstrap and qemu-system-x86. The bare root is made once and
kept in ~/.cache/kleak/bare-machine; a run writes to a copy that goes with it. Exit status 0 if the
leaks were found.

    make bare-machine
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kleak.vm.boot import kvm_works
from kleak.vm.kernels import find_kernel

TOP = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kleak" / "bare-machine"
SUITE = "bookworm"
LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
NETWORK = """\
[Match]
Type=ether
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
"""
UNIT = """\
[Unit]
Description=The job on the second disk
After=systemd-networkd-wait-online.service
Wants=systemd-networkd-wait-online.service
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh /srv/job/job
ExecStopPost=/bin/systemctl poweroff --no-block
[Install]
WantedBy=multi-user.target
"""
PROVISION = """\
set -e
mount -o loop "$1" "$2"
mount -t proc proc "$2/proc"
mount -t sysfs sysfs "$2/sys"
mount --rbind /dev "$2/dev"
mount --bind /etc/resolv.conf "$2/etc/resolv.conf"
mkdir "$2/srv/job"
tar -xf "$3" -C "$2/srv/job"
chroot "$2" chown -R developer: /srv/job
chroot "$2" su - developer -c "cd /srv/job/kleak && .ci/provision"
"""
JOB = """\
su - developer -c '
    set -e
    cd /srv/job/kleak
    .ci/provision
    module=$(.venv/bin/python tests/build_modules.py --kernel "$(uname -r)" examples/leaky)
    echo "bare machine: provisioned"
    cd
    sudo /srv/job/kleak/.venv/bin/kleak module "$module" --cycles 3
'
echo "bare machine: status $?"
"""
FOUND = 1
"""kleak's exit status where it finds leaks."""


def archives() -> dict[str, str]:
    """Return where this machine gets Debian 12 from: URIs of archives by suite."""
    answer = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Origin: Debian",
         "Component: main", "Created-By: Packages"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    pairs = (line.split() for line in answer.stdout.splitlines())
    found = {suite: uri for suite, uri in pairs if suite.split("-")[0] == SUITE}
    if SUITE not in found:
        sys.exit(f"apt knows no archive of Debian's {SUITE} here: apt-get update")
    return found


def make_image(image: Path) -> None:
    """Make the root of a bare Debian 12 and put it into the file system image ``image``."""
    image.parent.mkdir(parents=True, exist_ok=True)
    sources = archives()
    with tempfile.TemporaryDirectory(dir=image.parent, prefix="root-") as scratch:
        root = Path(scratch) / "root"
        run(
            "debootstrap",
            "--variant=minbase",
            "--include=linux-image-amd64,systemd-sysv,sudo",
            SUITE,
            root,
            sources[SUITE],
        )
        configure(root, sources)
        unfinished = Path(scratch) / "image"
        run("mke2fs", "-q", "-t", "ext4", "-d", root, unfinished, "20G")
        for kind in ("vmlinuz", "initrd.img"):
            shutil.copy(root / kind, image.with_name(kind))
        unfinished.rename(image)


def configure(root: Path, sources: dict[str, str]) -> None:
    """Give the root what an installer would: archive, network, a user with sudo; and the job."""
    apt = root / "etc/apt"
    (apt / "sources.list").write_text(
        "".join(f"deb {uri} {suite} main\n" for suite, uri in sources.items())
    )
    # How this machine reaches the archive, and whose certificates it trusts, holds there too.
    settings = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    kept = re.findall(r"^Acquire::(?:Check|https?::Proxy).*\n", settings.stdout, re.MULTILINE)
    (apt / "apt.conf.d/50this-network").write_text("".join(kept))
    if LOCAL_CERTIFICATES.is_dir():
        shutil.copytree(
            LOCAL_CERTIFICATES, root / str(LOCAL_CERTIFICATES).lstrip("/"), dirs_exist_ok=True
        )
    (root / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
    (root / "etc/hostname").write_text("bare\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost bare\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (root / "etc/systemd/network/ether.network").write_text(NETWORK)
    (root / "etc/systemd/system/job.service").write_text(UNIT)
    run("systemctl", f"--root={root}", "-q", "enable", "systemd-networkd", "job.service")
    run("chroot", root, "useradd", "-m", "-s", "/bin/bash", "developer")
    sudoers = root / "etc/sudoers.d/developer"
    sudoers.write_text("developer ALL=(ALL) NOPASSWD: ALL\n")
    sudoers.chmod(0o440)


def pack_job(tar: Path) -> None:
    """Write the job and this checkout, as it is, without what git ignores."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP, capture_output=True, check=True,
    ).stdout  # fmt: skip
    job = tar.with_name("job")
    job.write_text(JOB)
    run("tar", "-cf", tar, "-C", job.parent, job.name)
    subprocess.run(
        ["tar", "-rf", tar, "--null", "-T", "-", "--transform=s,^,kleak/,"],
        cwd=TOP, input=files, check=True,
    )  # fmt: skip


def provision(image: Path, job: Path) -> None:
    """Run .ci/provision in a chroot of the image; the mounts end with their name space."""
    with tempfile.TemporaryDirectory() as point:
        name_space = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        run(*name_space, "sh", "-c", PROVISION, "sh", image, point, job)


def boot(image: Path, kernel: Path, log: Path) -> list[str]:
    """Boot the image with the kernel made with it, show its console and keep it in ``log``;
    return its lines.
    """
    accelerator = "kvm" if kvm_works(find_kernel("6.1")) else "tcg"
    command = [
        "qemu-system-x86_64",
        *("-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "4G"),
        *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", kernel / "vmlinuz", "-initrd", kernel / "initrd.img"),
        # A login on the console would hang up on the job.
        *("-append", "root=/dev/vda rw console=ttyS0 systemd.mask=serial-getty@ttyS0.service"),
        *("-drive", f"file={image},format=raw,if=virtio,cache=unsafe"),
        *("-nic", "user,model=virtio-net-pci"),
    ]
    start = time.monotonic()
    lines = []
    qemu = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    assert qemu.stdout is not None
    try:
        with log.open("w", encoding="utf-8") as kept:
            for line in qemu.stdout:
                timed = f"{time.monotonic() - start:6.0f}  {line.rstrip()}"
                print(timed, flush=True)
                print(timed, file=kept, flush=True)
                lines.append(line.strip())
    finally:
        qemu.kill()
        qemu.wait()
    return lines


def run(*command: str | Path) -> None:
    """Run a command that must not fail."""
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL)


def main() -> int:
    """Make the root if there is none, and prove the provisioning in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="make the root anew")
    fresh = parser.parse_args().fresh
    for program in ("debootstrap", "qemu-system-x86_64"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed: apt-get install debootstrap qemu-system-x86")
    image = CACHE / "debian12.ext4"
    if fresh or not image.exists():
        make_image(image)
    (TOP / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as scratch:
        job = Path(scratch) / "job.tar"
        pack_job(job)
        disk = Path(scratch) / "disk"
        run("cp", "--sparse=always", image, disk)
        provision(disk, job)
        lines = boot(disk, CACHE, TOP / "build" / "bare-machine.log")
    return 0 if f"bare machine: status {FOUND}" in lines else 1


if __name__ == "__main__":
    sys.exit(main())
