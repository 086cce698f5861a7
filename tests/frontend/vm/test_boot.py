"""kleak vm without a virtual machine: names of kernels, directories, how a result is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kleak.commands import vm as command
from kleak.errors import TargetError, UnsupportedError, UsageError
from kleak.vm import boot as vm

IMAGE = bytes(0x202) + b"HdrS" + bytes(100)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel cache with three kernels and two series, and one that is being unpacked."""
    monkeypatch.setenv("KLEAK_KERNELS", str(tmp_path))
    for release in ("6.1.0-56-amd64", "6.9.10-amd64", "6.12.117+deb12-amd64", "6.18.1-amd64"):
        directory = ".unpack.8lxtHs" if release == "6.18.1-amd64" else release
        boot = tmp_path / directory / "boot"
        boot.mkdir(parents=True)
        (boot / f"vmlinuz-{release}").write_bytes(IMAGE)
    (tmp_path / "6.1").symlink_to("6.1.0-56-amd64")
    (tmp_path / "6.12").symlink_to("6.12.117+deb12-amd64")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("6.1", "6.1.0-56-amd64"),
        ("6.12", "6.12.117+deb12-amd64"),
        ("6.9.10-amd64", "6.9.10-amd64"),
        (None, "6.12.117+deb12-amd64"),
    ],
)
def test_finds_a_kernel_of_the_cache(cache: Path, name: str | None, release: str) -> None:
    image = vm.find_kernel(name)
    assert image == cache / release / "boot" / f"vmlinuz-{release}"
    assert vm.release_of(image) == release


def test_a_kernel_with_a_compiler_of_its_own_is_booted_by_name_only(cache: Path) -> None:
    boot = cache / "7.3.4+deb13-amd64" / "boot"
    boot.mkdir(parents=True)
    shutil.copy(vm.find_kernel(), boot / "vmlinuz-7.3.4+deb13-amd64")
    assert vm.release_of(vm.find_kernel()) == "7.3.4+deb13-amd64"
    (boot.parent / vm.BUILDER).mkdir()
    assert vm.release_of(vm.find_kernel()) == "6.12.117+deb12-amd64"
    assert vm.release_of(vm.find_kernel("7.3.4+deb13-amd64")) == "7.3.4+deb13-amd64"


@pytest.mark.parametrize("name", ["6.7", "*", "../6.1", ""])
def test_an_unknown_kernel_is_a_usage_error_that_names_the_known(cache: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"known releases: .*6\.12\.117"):
        vm.find_kernel(name)


def test_a_file_that_is_no_kernel_is_a_usage_error(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("x" * 4096)
    with pytest.raises(UsageError, match="not a kernel image"):
        vm.find_kernel(str(tmp_path / "notes"))


def test_missing_virtme_ng_names_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="pip install virtme-ng"):
        vm.virtme_run()


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
    console = vm.Console()
    text = b"[    1.0] \x1b[1mx\x1b[0m\r\n[   12.8] Kernel panic - not syncing: Fatal exception\r\n"
    for index in range(len(text)):
        console.feed(text[index : index + 1])
    assert console.lines[0] == "[    1.0] x"
    assert console.panic() == "the guest kernel panicked: Fatal exception"


def test_a_console_without_a_panic_has_none() -> None:
    console = vm.Console()
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
    vm.boot(vm.find_kernel("6.1"), ["true"], kvm=kvm)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert ("tcg,thread=single" in arguments) is not kvm
