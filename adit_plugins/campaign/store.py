"""The campaign's memory: an ASE database that one driver process owns.

`ase db results.db` reads it at any time. ASE's own lock file is not used, since a killed writer
leaves it behind; what keeps a second driver out is a lock that ends with the process. Rows are
written many a transaction, so a kill at any moment leaves whole chunks or nothing of them.

One connection does everything. With two, a query that Ctrl-C breaks off keeps its lock on the
database as long as anybody holds the exception, and the driver's own next transaction waits for it
in vain: "database is locked".
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ase.db
from ase import Atoms

from adit_model.outputs import replacing
from adit_plugins.campaign.ownership import (
    OWNER,
    StoreError,
    acquire,
    explained,
    not_begun,
    owner_text,
)
from adit_plugins.campaign.store_queries import Queries
from adit_plugins.campaign.stored_rows import SETUP, Row, kept_columns
from adit_plugins.outputs import without_nan

STORE = "results.db"
FORMAT, VERSION = "adit campaign", 1
LOCKED_SECONDS = 20.0  # to wait for another program that writes, such as `ase db`


class Store(Queries):
    """The rows of a campaign in `FOLDER/results.db`; open it in a `with`.

    Args:
        folder: of the campaign.
        read_only: look at it beside a driver that may be at work; writing is for the driver alone.

    Raises:
        StoreError: the folder holds none, one of another version, or another driver owns it.
    """

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        self.folder, self.path = folder, folder / STORE
        if not self.path.is_file():
            raise StoreError(f"{folder} holds no campaign (there is no {STORE}).")
        self._lock = None if read_only else acquire(folder)
        self._connection: sqlite3.Connection | None = None
        try:
            with explained(folder):
                self._connection = sqlite3.connect(self.path, timeout=LOCKED_SECONDS)
            self._db = ase.db.connect(str(self.path), type="db", use_lock_file=False)
            # ASE would make a connection for each of its methods; it counts changes of a given one.
            self._db.connection, self._db.change_count = self._connection, 0
            self.metadata = self._checked_metadata()
            if read_only:
                return
            # Left by a killed `ase db`; the next one would wait for it forever.
            self.path.with_name(f"{STORE}.lock").unlink(missing_ok=True)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: Path, metadata: Mapping[str, Any]) -> Store:
        """Make a store that is complete from the moment it has its name.

        Raises:
            StoreError: there is one already, or the folder cannot be written.
        """
        path = folder / STORE
        if path.exists():
            raise StoreError(f"{path} exists. Continue it with --resume {folder}.")
        with not_begun(folder), replacing(path) as temporary:
            database = ase.db.connect(str(temporary), type="db", use_lock_file=False)
            header = {"format": FORMAT, "version": VERSION}
            database.metadata = without_nan({**metadata, **header})
            with database:
                for statement in SETUP:
                    database.connection.execute(statement)
        return cls(folder)

    def _checked_metadata(self) -> dict[str, Any]:
        with explained(self.folder):
            metadata = dict(self._db.metadata)
        if metadata.get("format") != FORMAT:
            raise StoreError(f"{self.path} is an ASE database, but not of a campaign.")
        if metadata.get("version") != VERSION:
            raise StoreError(
                f"{self.path} has the layout {metadata.get('version')}, this program writes "
                f"{VERSION}. Nothing was changed; continue it with the version of adit-plugins "
                f"that made it ({metadata.get('adit_plugins', 'unknown')}), or choose another "
                "--out."
            )
        return metadata

    def change_metadata(self, **changes: Any) -> None:
        """Exchange what the store says of its campaign."""
        with self._transaction():
            self._db.metadata = without_nan({**self.metadata, **changes})
        self.metadata = self._checked_metadata()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another driver in."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None and self._lock.is_locked:
            (self.folder / OWNER).unlink(missing_ok=True)
            self._lock.release()  # its file stays: another driver may be about to lock it

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nothing of what an interruption has left open.

        Raises:
            StoreError: the disk is full, the folder or this store read-only; nothing was changed.
        """
        if self._lock is None:
            raise StoreError(f"{self.path} was opened read only; open it as Store({self.folder}).")
        with self._open() as connection:
            connection.rollback()
            self._db.change_count = 0  # ASE commits by itself after 5,000
            try:
                yield connection
                connection.commit()
            except BaseException:
                with suppress(sqlite3.Error):  # there may be nothing left to undo
                    connection.rollback()
                raise

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give the connection, and one line in the place of what SQLite raises.

        Raises:
            StoreError: the database cannot be used, or the store is closed.
        """
        if self._connection is None:
            raise StoreError(f"The store in {self.folder} is closed.")
        with explained(self.folder):
            yield self._connection

    def _query(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows at once: a query that is not at its end would hold a lock."""
        with self._open() as connection:
            connection.rollback()  # it would see what an interrupted transaction has left open
            return connection.execute(query, values).fetchall()

    def add(self, rows: Iterable[Row]) -> list[int]:
        """Write new rows and return their ids."""
        rows = list(rows)  # first: whoever makes them may ask the store
        with self._transaction():
            return [
                self._db.write(row.atoms, key_value_pairs=kept_columns(row.columns), data=row.data)
                for row in rows
            ]

    def update(self, changes: Mapping[int, Row]) -> None:
        """Exchange the atoms of rows, add to their columns and data, and end their claims."""
        with self._transaction() as connection:
            for row_id, row in changes.items():
                self._db.update(row_id, row.atoms, data=row.data, **kept_columns(row.columns))
            connection.executemany(
                "DELETE FROM adit_claims WHERE id=?", [(row_id,) for row_id in changes]
            )

    def annotate(self, row_id: int, columns: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Add to the columns and data of a row; columns of the same names go even without value."""
        with self._transaction():
            gone = [key for key, value in columns.items() if value is None]
            plain = without_nan(dict(data))
            self._db.update(row_id, data=plain, delete_keys=gone, **kept_columns(columns))

    def annotate_all(self, changes: Mapping[int, Mapping[str, Any]]) -> None:
        """Set columns of many rows at once; None takes one away."""
        with self._transaction():
            for row_id, columns in changes.items():
                gone = [key for key, value in columns.items() if value is None]
                self._db.update(row_id, delete_keys=gone, **kept_columns(columns))

    def claim(
        self, stage: str, limit: int, max_atoms: int | None = None, full: bool = False
    ) -> list[tuple[int, Atoms]]:
        """Take rows that wait for a stage, first come first served.

        A claim carries its owner and time, and ends with the result (`update`).

        Args:
            stage: that they wait for.
            limit: rows at most.
            max_atoms: of all rows together, but for a single one with more; None for any number.
            full: take nothing unless more would be over a limit.
        """
        query = (
            "SELECT id, natoms FROM systems WHERE id IN "
            "(SELECT id FROM text_key_values WHERE key='stage' AND value=?) "
            "AND id NOT IN (SELECT id FROM adit_claims) ORDER BY id LIMIT ?"
        )
        ids: list[int] = []
        left = max_atoms
        for row_id, num_atoms in self._query(query, (stage, limit + 1)):
            if len(ids) == limit or (ids and left is not None and num_atoms > left):
                break
            ids.append(row_id)
            left = None if left is None else left - num_atoms
        else:
            if full or not ids:
                return []
        claims = [(row_id, owner_text(), time.time()) for row_id in ids]
        with self._transaction() as connection:
            connection.executemany("INSERT INTO adit_claims VALUES (?, ?, ?)", claims)
        structures = [(row.id, row.toatoms()) for row in self.rows(ids=ids)]
        for _, atoms in structures:
            atoms.info = {}  # ASE puts the columns there; workers need none of them
        return structures

    def claims(self) -> list[tuple[int, str, float]]:
        """Return what is at work: row, owner (host:process) and time (seconds since 1970)."""
        found = self._query("SELECT id, owner, time FROM adit_claims ORDER BY id")
        return [(row_id, owner, seconds) for row_id, owner, seconds in found]

    def release_claims(self) -> int:
        """Forget the claims of a driver that is gone; return how many there were."""
        num = len(self.claims())
        if num:
            with self._transaction() as connection:
                connection.execute("DELETE FROM adit_claims")
        return num


def has_store(folder: Path) -> bool:
    """Whether a folder holds a campaign's store."""
    return (folder / STORE).is_file()


def remove_store(folder: Path) -> None:
    """Remove a store, of whatever version.

    Raises:
        StoreError: a driver is at work there.
    """
    lock = acquire(folder)
    try:
        for name in (STORE, f"{STORE}-journal", OWNER):
            (folder / name).unlink(missing_ok=True)
    finally:
        lock.release()
