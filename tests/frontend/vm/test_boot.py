"""kleak vm without a virtual machine: what it needs, directories, how a result is told."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kleak.commands import vm as command
from kleak.errors import TargetError, UnsupportedError, UsageError
from kleak.vm import boot as vm
from kleak.vm.kernels import find_kernel
from kleak.vm.streams import Console


def test_missing_virtme_ng_names_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="pip install virtme-ng"):
        vm.virtme_run()


def elf(*segments: int) -> bytes:
    """An ELF file for x86-64 with empty segments of these types."""
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\2\1\1",
        2,
        62,
        1,
        0,
        64,
        0,
        0,
        64,
        56,
        len(segments),
        64,
        0,
        0,
    )
    return head + b"".join(struct.pack("<IIQQQQQQ", kind, 4, 0, 0, 0, 0, 0, 1) for kind in segments)


PT_LOAD, PT_INTERP = 1, 3
DYNAMIC, STATIC = elf(PT_LOAD, PT_INTERP), elf(PT_LOAD)


def machine_with(programs: dict[str, bytes], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be these programs, and no others."""
    place.mkdir()
    for name, content in programs.items():
        (place / name).write_bytes(content)
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr(vm, "_SYSTEM_PATH", "")


@pytest.mark.parametrize(
    "programs",
    [{"busybox": DYNAMIC}, {"busybox-static": DYNAMIC, "busybox": STATIC}],
    ids=["the only one", "the first of two"],
)
def test_a_busybox_that_needs_libraries_is_told_before_booting(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, bytes]
) -> None:
    kernel = find_kernel("6.1")
    (kernel.parent.parent / "lib/modules/6.1.0-56-amd64").mkdir(parents=True)
    machine_with({"virtme-run": b"", **programs}, tmp_path / "bin", monkeypatch)
    monkeypatch.setattr(vm, "virtme_run", lambda: str(tmp_path / "bin/virtme-run"))
    with pytest.raises(UnsupportedError, match=r"bin/busybox.* apt-get install busybox-static$"):
        vm.boot(kernel, ["true"], kvm=False)


@pytest.mark.parametrize(
    "programs",
    [
        {"busybox": STATIC},
        {"busybox-static": STATIC, "busybox": DYNAMIC},
        {"busybox": b"#!/bin/sh\n"},
        {},
    ],
    ids=["static", "static comes first", "no ELF file", "none"],
)
def test_any_other_busybox_is_left_to_virtme_run(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, bytes]
) -> None:
    kernel = find_kernel("6.1")
    (kernel.parent.parent / "lib/modules/6.1.0-56-amd64").mkdir(parents=True)
    machine_with(programs, tmp_path / "bin", monkeypatch)
    vm.check_busybox(kernel)


def test_a_kernel_without_modules_needs_no_busybox(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_with({"busybox": DYNAMIC}, tmp_path / "bin", monkeypatch)
    vm.check_busybox(find_kernel("6.1"))


@pytest.mark.parametrize(
    ("words", "directories"),
    [
        ((), ["."]),
        (("module", "x.ko", "--json", "out/r.json"), [".", "out"]),
        (("module", "x.ko", "--json=out/r.json"), [".", "out"]),
        (("module", "x.ko", "-o", "/elsewhere/r"), [".", "/elsewhere"]),
        (("module", "x.ko", "--json", "-"), ["."]),
        (("module", "x.ko", "--json"), ["."]),
    ],
)
def test_directories_of_outputs_are_writable(
    words: tuple[str, ...], directories: list[str]
) -> None:
    assert command.writable_directories(words) == [Path.cwd() / name for name in directories]


def test_shares_are_the_outermost_directories(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    shares = vm.outermost([inner, tmp_path / "ab", tmp_path / "a"])
    assert shares == [tmp_path / "a", tmp_path / "ab"]


@pytest.mark.parametrize("name", ["with space", "a=b", 'a"b'])
def test_a_directory_that_cannot_be_shared_is_a_usage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="cannot be shared"):
        vm.outermost([tmp_path / name])


@pytest.mark.parametrize("path", [Path("/"), Path("/nowhere-at-all")])
def test_no_root_and_no_absent_directory_is_shared(path: Path) -> None:
    with pytest.raises(UsageError):
        vm.outermost([path])


def test_a_panic_is_found_in_the_console_however_the_bytes_arrive() -> None:
    console = Console()
    text = b"[    1.0] \x1b[1mx\x1b[0m\r\n[   12.8] Kernel panic - not syncing: Fatal exception\r\n"
    for index in range(len(text)):
        console.feed(text[index : index + 1])
    assert console.lines[0] == "[    1.0] x"
    assert console.panic() == "the guest kernel panicked: Fatal exception"


def test_a_console_without_a_panic_has_none() -> None:
    console = Console()
    console.feed(b"[    1.0] all is well\n")
    assert console.panic() is None


def test_a_failed_guest_shows_its_last_console_lines(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tail = tuple(f"line {number}" for number in range(50))
    monkeypatch.setattr(command, "kvm_works", lambda kernel: False)
    monkeypatch.setattr(
        command, "boot", lambda *args, **options: vm.Result(None, "it is gone", b"", b"", tail)
    )
    with pytest.raises(TargetError, match="it is gone"):
        command.vm.main(["--", "module", "x.ko"], standalone_mode=False)
    shown = capsys.readouterr().err.splitlines()
    assert shown == [f"  console: line {number}" for number in range(30, 50)]


@pytest.mark.parametrize("memory", ["2", "G", "0G", "2g", "2G,x"])
def test_memory_must_have_a_unit(cache: Path, memory: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        command.vm.main(["--memory", memory, "--", "x"], standalone_mode=False)


@pytest.mark.parametrize("kvm", [True, False])
def test_emulated_cpus_share_a_thread(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kvm: bool
) -> None:
    """What virtme-run is started with, by one that writes it down."""
    assert cache.exists()
    runner = tmp_path / "virtme-run"
    runner.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{tmp_path}/arguments\n")
    runner.chmod(0o755)
    monkeypatch.setattr(vm, "virtme_run", lambda: str(runner))
    vm.boot(find_kernel("6.1"), ["true"], kvm=kvm)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert ("tcg,thread=single" in arguments) is not kvm
