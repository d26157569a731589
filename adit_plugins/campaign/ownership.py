"""One driver owns a store: the lock that says so, and errors in one line."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK, OWNER = ".driver.lock", ".driver.json"


class StoreError(ValueError):
    """The store cannot be opened or written; what it holds is whole."""


def owner_text() -> str:
    """Return this process as `host:number`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def acquire(folder: Path) -> FileLock:
    """Take the lock, which the system frees when this process ends however it may end.

    Raises:
        StoreError: another driver has it, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK)
    with explained(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(_taken(folder)) from None
        owner = {"owner": owner_text(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        (folder / OWNER).write_text(json.dumps(owner), encoding="utf-8")
    return lock


def _taken(folder: Path) -> str:
    who = ""
    with suppress(OSError, ValueError, KeyError):
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        who = f" ({owner['owner']}, since {owner['since']})"
    return (
        f"Another driver is at work in {folder}{who}. Wait for it or end it; several machines "
        "share a campaign by --shard."
    )


@contextmanager
def not_begun(folder: Path) -> Iterator[None]:
    """Say that nothing was begun, and leave nothing of it.

    Raises:
        StoreError: in the place of whatever SQLite and the file system raise.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        (folder / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # not empty: it was there before
            folder.rmdir()
        raise StoreError(
            f"No campaign was begun in {folder}: {error}. See to the disk's space and permissions, "
            "or choose another --out."
        ) from error


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say in one line why a store cannot be used.

    Raises:
        StoreError: in the place of whatever SQLite and the file system raise.
    """
    try:
        yield
    except StoreError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"The store in {folder} cannot be used: {error}. What it holds is whole; see to the "
            f"disk's space and permissions, then continue with --resume {folder}."
        ) from error
