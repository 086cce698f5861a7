import struct
import subprocess
from pathlib import Path

import pytest

from kleak.parsers.elf_notes import parse_build_id

NOTES = Path("/sys/kernel/notes")


def note(name: bytes, content: bytes, kind: int) -> bytes:
    def padded(data):
        return data + bytes(-len(data) % 4)

    return struct.pack("=III", len(name), len(content), kind) + padded(name) + padded(content)


XEN = note(b"Xen\0", b"linux", 6)
BUILD = note(b"GNU\0", bytes(range(20)), 3)


@pytest.mark.parametrize("notes", [BUILD, XEN + BUILD, BUILD + XEN, note(b"A\0", b"", 3) + BUILD])
def test_the_build_id_is_found(notes):
    assert parse_build_id(notes) == bytes(range(20)).hex()


@pytest.mark.parametrize(
    "notes",
    [
        b"",
        XEN,
        note(b"GNU\0", b"x", 1),
        note(b"Go\0\0", b"x", 3),
        BUILD[:-1],
        BUILD[:11],
        note(b"GNU\0", b"", 3),
    ],
)
def test_there_is_none(notes):
    assert parse_build_id(notes) is None


@pytest.mark.skipif(not NOTES.exists(), reason="this kernel has no notes")
def test_the_running_kernel_agrees_with_readelf(tmp_path):
    built = tmp_path / "a.out"
    source = tmp_path / "a.c"
    source.write_text("int main(void) { return 0; }")
    subprocess.run(["gcc", "-Wl,--build-id", "-o", built, source], check=True)
    section = tmp_path / "notes"
    subprocess.run(["objcopy", f"--dump-section=.note.gnu.build-id={section}", built], check=True)
    shown = subprocess.run(["readelf", "-n", built], capture_output=True, text=True, check=True)
    assert f"Build ID: {parse_build_id(section.read_bytes())}\n" in shown.stdout
    assert len(parse_build_id(NOTES.read_bytes())) == 40
