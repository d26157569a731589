"""The store: one driver, whole chunks, and clear words when it cannot be used."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import ase.db
import pytest
from ase import Atoms
from ase.build import bulk

from adit_plugins.campaign.store import STORE, Row, Store, StoreError, remove_store

SALT = bulk("NaCl", "rocksalt", a=5.69)
METADATA = {"recipe": {}, "settings": {}, "shard": [0, 1], "adit_plugins": "0.0.1"}


def row(number: int, **columns: object) -> Row:
    return Row(SALT.copy(), {"number": number, "stage": "relax", **columns}, {"adit": {}})


def test_rows_come_back_and_ase_db_reads_them(tmp_path: Path) -> None:
    names = {"1e5": "text:1e5", "InF": "text:InF", "True": "text:True", "plain": "plain"}
    with Store.create(tmp_path, METADATA) as store:
        ids = store.add(row(i, label=name, empty=None) for i, name in enumerate(names))
        assert [store.row(i)["label"] for i in ids] == list(names.values())
        assert "empty" not in store.row(ids[0])
        assert store.largest("number") == 3.0
        assert (len(store), store.count("stage", "relax"), store.count("number", 2.0)) == (4, 4, 1)
        found = [verdicts["number"] for verdicts in store.verdicts()]
        assert found == [each["number"] for each in store.rows()] == [0, 1, 2, 3]
    text = subprocess.run(
        [Path(sys.executable).with_name("ase"), "db", tmp_path / STORE, "number>1", "-c", "label"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert text.split()[:3] == ["label", "text:True", "plain"]


def test_claims_carry_owner_and_time_and_end_with_the_result(tmp_path: Path) -> None:
    with Store.create(tmp_path, METADATA) as store:
        store.add(row(i) for i in range(5))
        first = store.claim("relax", 2)
        second = store.claim("relax", 9)
        assert [row_id for row_id, _ in first + second] == [1, 2, 3, 4, 5]
        assert first[0][1] == SALT
        assert store.claim("relax", 9) == []
        row_id, owner, time = store.claims()[0]
        assert (row_id, owner.split(":")[1], time > 1e9) == (1, str(os.getpid()), True)
        store.update({1: Row(SALT * (2, 1, 1), {"stage": "done"}, {"more": 1})})
        assert [row_id for row_id, _, _ in store.claims()] == [2, 3, 4, 5]
        changed = store.row(1)
        assert (changed.natoms, changed["stage"], changed["number"]) == (4, "done", 0)
        assert changed.data == {"adit": {}, "more": 1}
        assert store.release_claims() == 4
        assert [row_id for row_id, _ in store.claim("relax", 9)] == [2, 3, 4, 5]


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    def rows() -> object:
        yield row(0)
        raise KeyboardInterrupt

    with Store.create(tmp_path, METADATA) as store:
        with pytest.raises(KeyboardInterrupt):
            store.add(rows())  # type: ignore[arg-type]
        assert len(store) == 0
        store.add([row(0)])
        assert len(store) == 1


def use(store: Store) -> None:
    """What a driver does with its store."""
    store.add([row(1)])
    store.row(1)
    store.claim("relax", 1)
    store.update({1: row(1)})


class Interrupted:
    """Ctrl-C at the n-th line of the store, ASE's database or a context manager."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, argument: object) -> object:
        path = Path(frame.f_code.co_filename)
        return self.trace if path.name in ("store.py", "sqlite.py", "contextlib.py") else None

    def trace(self, frame: FrameType, event: str, argument: object) -> object:
        self.left -= event in ("line", "return")
        if not self.left:
            raise KeyboardInterrupt
        return self.trace


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_store_goes_on_wherever_ctrl_c_has_struck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception holds what it has broken off: no lock on the database may be among that."""
    monkeypatch.setattr("adit_plugins.campaign.store.LOCKED_SECONDS", 0.1)
    line, step = 1, 23
    with Store.create(tmp_path, METADATA) as store:
        store.add([row(0)])
        while True:
            before = sys.gettrace()
            sys.settrace(Interrupted(line))  # type: ignore[arg-type]
            try:
                use(store)
                break
            except KeyboardInterrupt:
                sys.settrace(before)
                store.release_claims()
                store.add([row(2)])
                assert store.claims() == []
            finally:
                sys.settrace(before)
            line += step
    assert line > 10 * step
    assert integrity(tmp_path) == "ok"


def test_candidates_are_read_in_their_order(tmp_path: Path) -> None:
    with Store.create(tmp_path, METADATA) as store:
        places = {3: 0.1, 5: -0.2, 6: 0.0, 8: 0.3}
        worse = {6: "another"}  # became equal to a better one
        store.add(
            row(i, energy_above_hull=places.get(i), relaxed=True, composition_valid=False,
                relaxed_duplicate_of=worse.get(i))
            for i in range(10)
        )  # fmt: skip
        assert store.candidates() == [6, 4, 9]
        assert store.candidates(2) == [6, 4]
        assert [each["number"] for each in store.rows(ids=[9, 4])] == [8, 3]
        with pytest.raises(KeyError, match="no row 99"):
            store.row(99)


def test_a_second_driver_is_told_who_is_at_work(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from adit_plugins.campaign.store import Store\n"
        f"store = Store.create(Path({str(tmp_path)!r}), {METADATA!r})\n"
        "print('ready', flush=True); time.sleep(1000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(StoreError, match=rf"Another driver .*:{process.pid}, since .*--shard"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="Another driver"):
        remove_store(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / f"{STORE}.lock").touch()  # of an `ase db` that was killed too
    with Store(tmp_path) as store:
        assert len(store) == 0
    assert not (tmp_path / f"{STORE}.lock").exists()


def test_a_store_of_another_version_stays_as_it_is(tmp_path: Path) -> None:
    with Store.create(tmp_path, METADATA) as store:
        store.add([row(0)])
    database = ase.db.connect(tmp_path / STORE, use_lock_file=False)
    database.metadata = database.metadata | {"version": 0}
    before = (tmp_path / STORE).read_bytes()
    with pytest.raises(StoreError, match=r"layout 0, .* writes 1.*0\.0\.1.*--out"):
        Store(tmp_path)
    assert (tmp_path / STORE).read_bytes() == before


def test_a_foreign_database_or_none_or_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no campaign \(there is no results\.db\)"):
        Store(tmp_path)
    (tmp_path / STORE).write_bytes(b"no database at all, but long enough to look like a file" * 9)
    with pytest.raises(StoreError, match="file is not a database"):
        Store(tmp_path)
    (tmp_path / STORE).unlink()
    ase.db.connect(tmp_path / STORE, use_lock_file=False).write(SALT)
    with pytest.raises(StoreError, match="not of a campaign"):
        Store(tmp_path)


def test_a_driver_killed_while_it_made_the_store_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f".{STORE}").write_bytes(b"half")
    with Store.create(tmp_path, METADATA) as store:
        assert len(store) == 0
    with pytest.raises(StoreError, match="--resume"):
        Store.create(tmp_path, METADATA)


def test_a_full_disk_is_said_and_what_was_there_stays(tmp_path: Path) -> None:
    """The limit on the size of a file stands for the end of the disk."""
    with Store.create(tmp_path, METADATA) as store:
        store.add(row(i) for i in range(20))
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (tmp_path / STORE).stat().st_size
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, old[1]))
        try:
            with pytest.raises(StoreError, match=r"cannot be used: .*space.*--resume"):
                store.add(row(i) for i in range(20, 2000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, previous)
        assert len(store) == 20
        store.add([row(20)])
    assert integrity(tmp_path) == "ok"


def integrity(folder: Path) -> str:
    connection = sqlite3.connect(folder / STORE)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "readonly"
    folder.mkdir()
    with Store.create(folder, METADATA) as store:
        store.add([row(0)])
        (folder / STORE).chmod(0o444)
        folder.chmod(0o555)
        if os.access(folder, os.W_OK):  # to the superuser nothing is read-only
            folder.chmod(0o755)
            store._connection = sqlite3.connect(f"file:{folder / STORE}?mode=ro", uri=True)
            store._db.connection = store._connection
        with pytest.raises(StoreError, match=r"cannot be used: .*(readonly|open).*permissions"):
            store.add([row(1)])
        folder.chmod(0o755)
        assert len(store) == 1


def test_updates_do_not_get_slower_with_the_rows(tmp_path: Path) -> None:
    """ASE deletes by row id, which it does not index; a scan of all rows would show in the plan."""
    with Store.create(tmp_path, METADATA):
        connection = sqlite3.connect(tmp_path / STORE)
        for table in ("keys", "text_key_values", "number_key_values", "species"):
            plan = connection.execute(f"EXPLAIN QUERY PLAN DELETE FROM {table} WHERE id in (7)")
            assert "USING INDEX" in plan.fetchall()[0][3]
        connection.close()


def test_ranking_takes_work_in_proportion_to_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    connect = sqlite3.connect

    def counting(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection = connect(*args, **kwargs)
        connection.set_progress_handler(count, 100)  # every 100 instructions of SQLite
        return connection

    work = []
    monkeypatch.setattr("adit_plugins.campaign.store.sqlite3.connect", counting)
    with Store.create(tmp_path, METADATA) as store:
        for start, stop in ((0, 200), (200, 800)):
            store.add(
                Row(Atoms("H"), {"height": float(-i), "good": i % 2 == 0}, {})
                for i in range(start, stop)
            )
            steps = 0
            ranked = store.ranked("height", "good")
            work.append(steps)
            assert ranked == list(range(stop - 1, 0, -2))
    assert work[0] > 0
    assert work[1] < 6 * work[0]


def test_structures_without_atoms_have_a_row(tmp_path: Path) -> None:
    with Store.create(tmp_path, METADATA) as store:
        store.add([Row(Atoms(), {"number": 0}, {"adit": {}})])
        assert store.row(1).natoms == 0
