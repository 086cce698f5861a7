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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, cast

from kleak.errors import UsageError
from kleak.files.input_files import open_input, read_at_most

# A sosreport of a large machine has some 20,000 files and 1 GB; a report that matters has seldom
# more than 100 MB (a kernel log, page_owner of a large machine).
MAX_FILES = 50_000
MAX_FILE_BYTES = 256 << 20
MAX_TOTAL_BYTES = 1 << 30
# What may be unpacked and passed over to get there.
MAX_UNPACKED_BYTES = 8 << 30
_MOST_MEMBERS = 2 * MAX_FILES  # with directories and links
_MOST_HEADER_BYTES = 1 << 20
MAX_DEPTH = 12
_TAR_HEAD_BYTES = 512
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
    unpacked_bytes: int = MAX_UNPACKED_BYTES
    refused: list[str] = field(default_factory=list)

    def take(self, name: str, size_bytes: int) -> bool:
        """Whether a file of this size may be read; notes it where not."""
        if self.files <= 0:
            self.refuse("more files than kleak looks at were left out")
            return False
        if size_bytes > min(MAX_FILE_BYTES, self.total_bytes):
            self.refuse(f"{name}: too large to look at ({size_bytes >> 20} MB)")
            return False
        self.files -= 1
        self.total_bytes -= size_bytes
        return True

    def refuse(self, sentence: str) -> None:
        """Note what was not read."""
        if sentence not in self.refused:
            self.refused.append(sentence)


def read_file(path: Path, budget: Budget, *, links: bool = True) -> list[File]:
    """What a file holds: itself, unpacked, or the files of the archive that it is.

    Raises one of UNREADABLE, or UsageError where a tool to unpack it is missing.
    """
    with open_input(path, links=links) as file:
        about = os.fstat(file.fileno())
        regular = stat.S_ISREG(about.st_mode) and about.st_size
        if regular and not budget.take(path.name, about.st_size):
            return []
        # a pipe has no size, nor has a file of /proc
        data = read_at_most(file, MAX_FILE_BYTES)
    if data is None:
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
            with open_input(path, links=False) as file:
                data = file.read(about.st_size)
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
        yield from _decompress(file, budget, depth)
    elif head.startswith(_ZIP):
        yield from _unzip(file, budget, depth)
    elif _is_tar(file.data):
        yield from _untar(io.BytesIO(file.data), budget, depth)
    elif _is_mail(file.data):
        yield from _open_mail(file)
    else:
        yield file


class _Bounded(io.RawIOBase):
    """A stream behind a head that was read already. All archives share the budget's limit."""

    def __init__(self, head: bytes, stream: IO[bytes], budget: Budget) -> None:
        self._head = head
        self._stream = stream
        self._budget = budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._budget.unpacked_bytes + 1 if size < 0 else size
        data = self._head[:wanted]
        self._head = self._head[wanted:]
        while len(data) < wanted and (more := self._stream.read(wanted - len(data))):
            data += more
        self._budget.unpacked_bytes -= len(data)
        if self._budget.unpacked_bytes < 0:
            raise ValueError("unpacks to more than kleak reads")
        return data


def _decompress(file: File, budget: Budget, depth: int) -> Iterator[File]:
    """The file in it, or, of a tar, the files: those that are too large are passed over.

    Raises one of UNREADABLE.
    """
    with _opened(file.data) as stream:
        head = stream.read(_TAR_HEAD_BYTES)
        if _is_tar(head):
            bounded = _Bounded(head, stream, budget)
            yield from _untar(bounded, budget, depth, mode="r|")
            return
        limit = min(MAX_FILE_BYTES, budget.total_bytes)
        plain = head + stream.read(limit + 1 - len(head))
    if len(plain) > limit:
        raise ValueError(f"unpacks to more than {limit >> 20} MB")
    budget.total_bytes -= len(plain)
    name = file.name.removesuffix(Path(file.name).suffix)
    yield from unpack(File(name, plain), budget, depth + 1)


@contextmanager
def _opened(data: bytes) -> Iterator[IO[bytes]]:
    """What compressed data unpacks to, as a stream."""
    packed = io.BytesIO(data)
    if data.startswith(_GZIP):
        with gzip.open(packed) as stream:
            yield cast("IO[bytes]", stream)
    elif data.startswith(_XZ):
        with lzma.open(packed) as xz:
            yield xz
    elif data.startswith(_BZIP2):
        with bz2.open(packed) as bzip:
            yield bzip
    else:
        with _opened_zstd(data) as zstd:
            yield zstd


@contextmanager
def _opened_zstd(data: bytes) -> Iterator[IO[bytes]]:
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
            try:
                yield process.stdout
                whole = not process.stdout.read(1)
            finally:
                process.kill()
    if whole and process.returncode > 0:
        raise ValueError("zstd data that is damaged or cut off")


def _is_tar(data: bytes) -> bool:
    return data[257:262] == b"ustar"


class _Member(tarfile.TarInfo):
    """A file of a tar. Its long names and attributes are read as a whole, so they have a limit."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        plain = (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE, tarfile.LNKTYPE)
        if member.type not in plain and member.size > _MOST_HEADER_BYTES:
            raise tarfile.ReadError("a name or an attribute in it is too long")
        return member


def _untar(
    data: IO[bytes] | _Bounded, budget: Budget, depth: int, mode: Literal["r:", "r|"] = "r:"
) -> Iterator[File]:
    with tarfile.open(fileobj=cast("IO[bytes]", data), mode=mode, tarinfo=_Member) as archive:
        for number, member in enumerate(archive):
            if number >= _MOST_MEMBERS:
                raise tarfile.ReadError(f"it has more than {_MOST_MEMBERS} members")
            if member.isfile() and budget.take(member.name, member.size):
                opened = archive.extractfile(member)
                if opened is not None:
                    yield from unpack(File(member.name, opened.read()), budget, depth + 1)


def _unzip(file: File, budget: Budget, depth: int) -> Iterator[File]:
    with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
        for member in archive.infolist():
            # what the directory says of the size may be a lie: read no more than it says
            if member.is_dir() or not budget.take(member.filename, member.file_size):
                continue
            # of the others the standard library unpacks all at once, however little is asked for
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                budget.refuse(
                    f"{member.filename}: packed in a way that kleak does not read in zips"
                )
            else:
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
