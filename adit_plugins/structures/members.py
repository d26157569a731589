"""Where structures lie: a file, a folder or an archive, as a list of files that can be opened.

Compression is peeled off by content, so a file is of the kind that the rest of its name says. What
is no file of structures, or a second form of the same ones, is left out and named.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from adit_plugins.structures.entries import InputError

COMPRESSIONS: dict[bytes, Callable[[BinaryIO], IO[bytes]]] = {
    b"\x1f\x8b": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz")
_COMPRESSED = re.compile(r"\.(gz|bz2|xz)$", re.IGNORECASE)
MAX_BYTES = 2**31  # of what is taken into memory or unpacked as a whole
MAX_LINE = 2**26  # characters; longer lines come in pieces
PIECE = 2**16  # characters


@dataclass(frozen=True)
class Member:
    """A file that can be opened, on disk or in an archive.

    Attributes:
        name: relative to where it was found, with `/`.
        raw: opens its bytes, still compressed.
        path: where it lies on disk, if it does.
    """

    name: str
    raw: Callable[[], IO[bytes]]
    path: Path | None = None

    @property
    def kind(self) -> str:
        """What it is by its name: a suffix in lower case, or `.vasp` and `.xdatcar`."""
        return kind_of(self.name)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes without the compression."""
        with self.raw() as raw:
            buffered = io.BufferedReader(cast(io.RawIOBase, raw))
            head = buffered.peek(8)
            for magic, opened in COMPRESSIONS.items():
                if head.startswith(magic):
                    with opened(cast(BinaryIO, buffered)) as inner:
                        yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, inner)))
                    return
            yield cast(BinaryIO, buffered)

    @contextmanager
    def lines(self) -> Iterator[Iterator[str]]:
        """Its text, line by line: UTF-8 with or without a mark, or UTF-16 with one."""
        with self._text() as text:
            yield iter(lambda: text.readline(MAX_LINE), "")

    @contextmanager
    def pieces(self) -> Iterator[Iterator[str]]:
        """Its text, as `lines`, in pieces that do not depend on where lines end."""
        with self._text() as text:
            yield iter(lambda: text.read(PIECE), "")

    def text(self) -> str:
        """Its text, as `lines`, whole.

        Raises:
            InputError: it is too large for memory.
        """
        with self._text() as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise too_large(self.name)
        return text

    @contextmanager
    def _text(self) -> Iterator[io.TextIOWrapper]:
        with self.open() as file:
            head = file.peek(4)[:4]  # type: ignore[attr-defined]
            wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
            encoding = "utf-16" if wide else "utf-8-sig"
            with io.TextIOWrapper(file, encoding=encoding, errors="replace") as text:
                yield text

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """A path to it without the compression, for readers that want one.

        Raises:
            InputError: it is too large to be unpacked.
        """
        if self.path is not None and not _COMPRESSED.search(self.name):
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder, self.open() as file:
            path = Path(folder) / PurePosixPath(_COMPRESSED.sub("", self.name)).name
            with path.open("wb") as copy:
                shutil.copyfileobj(_Limited(file, self.name), copy)
            yield path


class _Limited:
    """A file that ends with an error rather than fill the disk."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name, self._size = file, name, 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._size += len(data)
        if self._size > MAX_BYTES:
            raise too_large(self._name)
        return data


def too_large(name: str) -> InputError:
    """Say that something is more than is taken into memory or unpacked."""
    return InputError(f"{name} has more than {MAX_BYTES} bytes unpacked; give it in parts.")


@lru_cache(maxsize=10_000)
def kind_of(name: str) -> str:
    """See `Member.kind`."""
    inner = PurePosixPath(_COMPRESSED.sub("", name))
    if re.search(r"(^|[^a-z])(poscar|contcar)([^a-z]|$)", inner.name, re.IGNORECASE):
        return ".vasp"
    if re.search(r"(^|[^a-z])xdatcar([^a-z]|$)", inner.name, re.IGNORECASE):
        return ".xdatcar"
    if _COMPRESSED.search(name) and inner.suffix.lower() == ".tar":
        return ".tar"
    return inner.suffix.lower()


def stem_of(name: str) -> str:
    """The name without the suffixes of its format and compression."""
    inner = _COMPRESSED.sub("", name)
    return (
        inner
        if kind_of(name) in (".vasp", ".xdatcar")
        else str(PurePosixPath(inner).with_suffix(""))
    )


def of_file(path: Path) -> Member:
    """A file on disk."""
    return Member(path.name, lambda: path.open("rb"), path)


def of_folder(folder: Path) -> list[Member]:
    """All files in a folder and below, hidden ones left out, `sample_2` before `sample_10`."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not _is_hidden(each)]
        for file in files:
            path = Path(place) / file
            name = path.relative_to(folder).as_posix()
            if not _is_hidden(name) and path.is_file():
                found.append(Member(name, lambda path=path: path.open("rb"), path))  # type: ignore[misc]
    return in_order(found)


@contextmanager
def of_archive(member: Member) -> Iterator[list[Member]]:
    """The files of a zip or tar.

    Raises:
        InputError: it is damaged.
    """
    try:
        if member.kind == ".zip":
            with member.on_disk() as path, zipfile.ZipFile(path) as archive:
                yield in_order([
                    Member(_posix(each.filename), lambda each=each: archive.open(each))  # type: ignore[misc]
                    for each in archive.infolist()
                    if not each.is_dir() and not _is_hidden(_posix(each.filename))
                ])  # fmt: skip
            return
        with member.open() as file, tarfile.open(fileobj=file) as archive_of_tar:
            # In their order: to go back in a compressed archive is to read it again.
            yield [
                Member(_posix(each.name), lambda each=each: _extracted(archive_of_tar, each))  # type: ignore[misc]
                for each in archive_of_tar
                if each.isfile() and not _is_hidden(_posix(each.name))
            ]  # fmt: skip
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError) as error:
        raise InputError(f"{member.name} is a damaged archive: {error}") from error


def _extracted(archive: tarfile.TarFile, each: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(each)
    assert file is not None  # it is a file
    return file


def _posix(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _is_hidden(name: str) -> bool:
    """Dot files, such as the `._x.cif` that macOS writes beside `x.cif`, and its `__MACOSX`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def in_order(members: Sequence[Member]) -> list[Member]:
    """Sorted with `sample_2` before `sample_10`."""
    pieces = re.compile(r"(\d+)")

    def key(member: Member) -> list[tuple[int, str]]:
        return [(len(x), x) if x.isdigit() else (0, x) for x in pieces.split(member.name)]

    return sorted(members, key=key)
