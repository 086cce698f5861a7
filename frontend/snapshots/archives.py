"""Files out of directories, archives and compressed files, with a bound on everything.

What somebody sent may be damaged or hostile: nothing is unpacked to disk, no link is followed,
and no more than the limits below is read, however much a small file unpacks to.
"""

from __future__ import annotations

import bz2
import email
import email.policy
import gzip
import io
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from kleak.errors import UsageError

# A sosreport of a large machine has some 20,000 files and 1 GB; a report that matters has seldom
# more than 100 MB (a kernel log, page_owner of a large machine).
MAX_FILES = 50_000
MAX_FILE_BYTES = 256 << 20
MAX_TOTAL_BYTES = 1 << 30
MAX_DEPTH = 12
_NESTED = 2

UNREADABLE = (
    OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
    RuntimeError, NotImplementedError, ValueError,
)  # fmt: skip
"""What the standard library raises for files that are damaged, cut off or encrypted."""

_GZIP, _XZ, _BZIP2, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd"
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class File:
    """One file with its content, under its name within what it came from."""

    name: str
    data: bytes


@dataclass(slots=True)
class Budget:
    """How much more may be read; ``refused`` says what was not, a sentence each."""

    files: int = MAX_FILES
    total_bytes: int = MAX_TOTAL_BYTES
    refused: list[str] = field(default_factory=list)

    def take(self, name: str, size_bytes: int) -> bool:
        """Whether a file of this size may be read; notes it where not."""
        if self.files <= 0:
            self._refuse("more files than kleak looks at were left out")
            return False
        if size_bytes > min(MAX_FILE_BYTES, self.total_bytes):
            self._refuse(f"{name}: too large to look at ({size_bytes >> 20} MB)")
            return False
        self.files -= 1
        self.total_bytes -= size_bytes
        return True

    def _refuse(self, sentence: str) -> None:
        if sentence not in self.refused:
            self.refused.append(sentence)


def read_file(path: Path, budget: Budget) -> list[File]:
    """What a file holds: itself, unpacked, or the files of the archive that it is.

    Raises one of UNREADABLE, or UsageError where a tool to unpack it is missing.
    """
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        regular = stat.S_ISREG(about.st_mode) and about.st_size
        if regular and not budget.take(path.name, about.st_size):
            return []
        # a pipe has no size, nor has a file of /proc
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{path}: more than {MAX_FILE_BYTES >> 20} MB")
    return list(unpack(File(path.name, data), budget))


def read_tree(root: Path, budget: Budget) -> Iterator[File]:
    """The files below a directory in the order of their names. No link is followed."""
    for path in _walk(root, 0):
        name = str(path.relative_to(root))
        try:
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode) or not budget.take(name, about.st_size):
                continue
            data = path.read_bytes()
            yield from unpack(File(name, data), budget)
        except (*UNREADABLE, UsageError) as error:
            budget.refused.append(f"{name}: cannot be read: {error}")


def _walk(directory: Path, depth: int) -> Iterator[Path]:
    if depth > MAX_DEPTH:
        return
    entries = sorted(directory.iterdir(), key=lambda entry: natural_order(entry.name))
    for entry in entries:
        if entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _walk(entry, depth + 1)
        else:
            yield entry


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts file9 before file10."""
    parts: list[tuple[int, int, str]] = []
    word = ""
    digits = ""
    for character in name + "\0":
        if character.isdecimal() and character.isascii():
            digits += character
            continue
        if digits:
            parts += [(1, 0, word), (0, int(digits[:18]), "")]
            word = digits = ""
        word += character
    return (*parts, (1, 0, word))


def unpack(file: File, budget: Budget, depth: int = 0) -> Iterator[File]:
    """A file as it is, or what is in it, through as many wrappings as anybody uses."""
    head = file.data[:6]
    if depth > _NESTED:
        yield file
    elif head.startswith((_GZIP, _XZ, _BZIP2, _ZSTD)):
        data = _decompress(file.data, budget)
        name = file.name.removesuffix(Path(file.name).suffix)
        yield from unpack(File(name, data), budget, depth + 1)
    elif head.startswith(_ZIP):
        yield from _unzip(file, budget, depth)
    elif _is_tar(file.data):
        yield from _untar(file, budget, depth)
    elif _is_mail(file.data):
        yield from _open_mail(file)
    else:
        yield file


def _decompress(data: bytes, budget: Budget) -> bytes:
    """The whole, up to the limit. Raises one of UNREADABLE."""
    limit = min(MAX_FILE_BYTES, budget.total_bytes)
    if data.startswith(_ZSTD):
        plain = _decompress_zstd(data, limit)
    else:
        with _opened(data) as stream:
            plain = stream.read(limit + 1)
    if len(plain) > limit:
        raise ValueError(f"unpacks to more than {limit >> 20} MB")
    budget.total_bytes -= len(plain)
    return plain


def _opened(data: bytes) -> IO[bytes]:
    packed = io.BytesIO(data)
    if data.startswith(_GZIP):
        return cast("IO[bytes]", gzip.open(packed))
    return lzma.open(packed) if data.startswith(_XZ) else bz2.open(packed)


def _decompress_zstd(data: bytes, limit: int) -> bytes:
    tool = shutil.which("zstd")
    if tool is None:
        raise ValueError("compressed with zstd, and there is no zstd command: unpack it first")
    with tempfile.TemporaryFile() as packed:
        packed.write(data)
        packed.seek(0)
        with subprocess.Popen(
            [tool, "-dcq"], stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            plain = process.stdout.read(limit + 1)
            if len(plain) > limit:
                process.kill()
    if process.returncode and len(plain) <= limit:
        raise ValueError("zstd data that is damaged or cut off")
    return plain


def _is_tar(data: bytes) -> bool:
    return data[257:262] == b"ustar"


def _untar(file: File, budget: Budget, depth: int) -> Iterator[File]:
    with tarfile.open(fileobj=io.BytesIO(file.data)) as archive:
        for member in archive:
            if member.isfile() and budget.take(member.name, member.size):
                opened = archive.extractfile(member)
                if opened is not None:
                    yield from unpack(File(member.name, opened.read()), budget, depth + 1)


def _unzip(file: File, budget: Budget, depth: int) -> Iterator[File]:
    with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
        for member in archive.infolist():
            # what the directory says of the size may be a lie: read no more than it says
            if not member.is_dir() and budget.take(member.filename, member.file_size):
                with archive.open(member) as opened:
                    data = opened.read(member.file_size + 1)[: member.file_size]
                yield from unpack(File(member.filename, data), budget, depth + 1)


def _is_mail(data: bytes) -> bool:
    """Whether this is a mail whose parts may be encoded."""
    head = data[:20_000].lower()
    begins = head.startswith(
        (b"from ", b"from:", b"return-path:", b"received:", b"delivered-to:", b"mime-version:",
         b"date:", b"message-id:", b"subject:", b"content-type:", b"x-", b"to:")
    )  # fmt: skip
    return begins and (b"content-transfer-encoding:" in head or b"multipart/" in head)


def _open_mail(file: File) -> Iterator[File]:
    mail = email.message_from_bytes(file.data, policy=email.policy.default)
    for number, part in enumerate(mail.walk(), 1):
        if part.is_multipart():
            continue
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes) and payload.strip():
            yield File(part.get_filename() or f"{file.name} part {number}", payload)
