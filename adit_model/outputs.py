"""Files that are whole or not there: what every writer of the project goes through."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

SYNCHRONISED_AT_ONCE = 16

# The machine and the process are in a name, so that what a kill left is known as such.
_HIDDEN = re.compile(
    r"\.(?P<host>[0-9a-f]{8})-(?P<pid>\d{1,9})-[0-9a-f]{8}\.(?P<role>part|old)\.(?P<name>.+)"
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a hidden name beside `path`; the file or folder made there takes its place at the end.

    It is on the disk before it gets its name, so neither a kill nor a power cut leaves half of it;
    if the block raises, it is removed and `path` stays as it was. What an earlier process that was
    killed left in the same folder is removed, too. A folder cannot be replaced in one step: a kill
    between the two leaves the earlier one under a hidden name, and the next writer puts it back.

    Args:
        path: a file, or a folder; the hidden name ends in the same suffix.

    Raises:
        OSError: the folder cannot be written, the disk is full, or the block has made nothing.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from adit_model.outputs import replacing
        >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path  # a pipe, or a device such as /dev/null: nothing there can be lost
        return
    name, path = path, path.resolve()  # a link stays a link
    with _named(name):
        _remove_leftovers(path.parent)
        temporary = beside(path)
        temporary.touch()  # refuses early, and shows the permissions that this user's files have
        mode = temporary.stat().st_mode
        temporary.unlink()
    try:
        with _named(name):
            yield temporary
            if temporary.is_file():
                temporary.chmod(mode)  # some libraries make files that nobody else can read
            _synchronise(temporary)
            _put(temporary, path)
            _synchronise_folder(path.parent)
    finally:
        _remove(temporary)


def check_writable(path: Path) -> None:
    """Find out before the work whether a file or folder can be made at a path.

    Raises:
        OSError: its folder is missing, read-only, or on a full disk; the message names both.
    """
    place = path.absolute().parent
    while not place.exists():  # a writer may make folders, too
        place = place.parent
    probe = beside(place / path.name)
    with _named(path):
        probe.touch()
        probe.unlink()


_OF_THE_DISK = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
)  # fmt: skip


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file where the system only says that there is no space, or no permission."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        reason = os.strerror(error.errno)
        again = type(error)(f"Cannot write {path}: {reason}. Choose another place, or make room.")
        again.errno = error.errno
        raise again from error


def said(error: Exception) -> str:
    """The message; of the operating system's errors with the place and the next step."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return (
            f"Cannot use {error.filename}: {error.strerror}. Choose another place, or see to its "
            "permissions."
        )
    return str(error)


def beside(path: Path, role: str = "part") -> Path:
    """Return a free hidden name in the same folder: renaming cannot cross file systems."""
    return path.parent / f".{_host()}-{os.getpid()}-{secrets.token_hex(4)}.{role}.{path.name}"


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _put(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        temporary.replace(path)
        return
    aside = beside(path, "old")  # a folder with something in it cannot be renamed over
    path.replace(aside)
    try:
        temporary.replace(path)
    except BaseException:
        aside.replace(path)
        raise
    _remove(aside)


def _synchronise(path: Path) -> None:
    """Put a file, or all of a folder, on the disk."""
    paths = (path, *path.rglob("*"))
    # A disk takes many requests at once: a thousand files in 0.1 s, one after the other in 4 s.
    with ThreadPoolExecutor(min(len(paths), SYNCHRONISED_AT_ONCE)) as threads:
        for _ in threads.map(_synchronise_one, paths):
            pass  # raises what a thread has raised


def _synchronise_one(path: Path) -> None:
    if path.is_dir():
        _synchronise_folder(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _synchronise_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system can do this for folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove, or put back, what processes of this machine left that are no more."""
    with os.scandir(folder) as entries:  # of a hundred thousand files, say: no Path for each
        hidden = [each.name for each in entries if each.name.startswith(".")]
    for name in hidden:
        left, match = folder / name, _HIDDEN.fullmatch(name)
        if match is None or match["host"] != _host() or _is_running(int(match["pid"])):
            continue
        with suppress(OSError):  # another user's, or another process is faster
            original = folder / match["name"]
            if match["role"] == "old" and not original.exists():
                left.replace(original)
            else:
                _remove(left)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return True
