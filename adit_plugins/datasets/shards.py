"""A stream of crystals into many files, in memory for one of them, that goes on after a kill.

A folder of shards is what `adit_model.sharded_data` reads: `dataset.json`, written last, and
`shard-000000.safetensors`, each of so many rows of the source. `records/` tells of each what became
of its rows; what has a record is not made again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.data import PreparedData
from adit_model.outputs import replacing
from adit_model.sharded_data import ShardedData, write_index
from adit_plugins.datasets.common import arrays
from adit_plugins.datasets.errors import DatasetError
from adit_plugins.datasets.labels import described
from adit_plugins.datasets.streams import CrystalStream, Fate, sorted_out, walk
from adit_plugins.outputs import differences

PLAN, RECORDS = "prepare.json", "records"


@dataclass
class Summary:
    """What became of a source.

    Attributes:
        rows: of the source.
        kept: structures in the shards.
        left: rows that were left out, by reason.
        first: an example of each reason.
    """

    rows: int = 0
    kept: int = 0
    left: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Count a shard's record."""
        self.rows += record["rows"]
        self.kept += record["kept"]
        self.left.update(record["left"])
        for reason, example in record["first"].items():
            self.first.setdefault(reason, example)

    def text(self) -> str:
        """In words, for a person."""
        text = f"{self.kept} of {self.rows} rows are structures of it"
        for reason, count in self.left.most_common():
            text += f"; {count} {reason} (the first: {self.first[reason]})"
        return text


def prepare_shards(
    stream: CrystalStream,
    source: Path | None,
    folder: Path,
    shard_size: int,
    report: Callable[[Path, dict[str, Any]], None] = lambda path, record: None,
) -> Summary:
    """Write the shards that are missing, then what makes a data set of them.

    Args:
        stream: of the source.
        source: the user's file or folder, whose change is noticed.
        folder: of the data set; made if missing.
        shard_size: rows of the source a shard.
        report: called with each new shard and its record.

    Raises:
        DatasetError: the folder holds something else, the source cannot be read, or nothing of it
            is left.
    """
    _check_plan(stream, source, folder, shard_size)
    done = {int(path.stem.removeprefix("shard-")) for path in _records(folder)}
    fates = walk(stream, lambda number: number // shard_size not in done)
    for shard, group in groupby(fates, lambda fate: fate.number // shard_size):
        path = folder / f"shard-{shard:06d}.safetensors"
        record = _write(stream, path, group)
        with replacing(folder / RECORDS / f"{path.stem}.json") as temporary:
            temporary.write_text(json.dumps(record) + "\n")
        report(path, record)
    summary = Summary()
    names = []
    for path in _records(folder):
        record = json.loads(path.read_text())
        summary.add(record)
        names += [f"{path.stem}.safetensors"] if record["kept"] else []
    if not names:
        raise DatasetError(f"{stream.name}: no structure to prepare from {stream.source}")
    _finish(stream, folder, names)
    return summary


def _records(folder: Path) -> list[Path]:
    return sorted((folder / RECORDS).glob("shard-*.json"))


def _check_plan(stream: CrystalStream, source: Path | None, folder: Path, shard_size: int) -> None:
    """Refuse to go on with other settings, or in a folder of something else."""
    plan = stream.describe() | {"shard_size": shard_size}
    if source is not None:
        plan["path"] = str(source.resolve())
        plan["bytes"] = source.stat().st_size if source.is_file() else None
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / PLAN).is_file()
    ):
        raise DatasetError(f"{folder} is no folder of shards; choose another --out")
    (folder / RECORDS).mkdir(parents=True, exist_ok=True)
    if not (folder / PLAN).is_file():
        with replacing(folder / PLAN) as temporary:
            temporary.write_text(json.dumps(plan, indent=2) + "\n")
        return
    if differ := differences(json.loads((folder / PLAN).read_text()), plan):
        raise DatasetError(
            f"{folder} was begun otherwise: {differ[0]}. Repeat its command, or choose another "
            "--out."
        )


def _write(stream: CrystalStream, path: Path, fates: Iterator[Fate]) -> dict[str, Any]:
    """Write a shard; return its record."""
    rows, left, first = sorted_out(fates)
    if rows:
        arrays(stream.name, "crystal", rows, stream.source).save(path)
    number = len(rows) + left.total()
    return {"rows": number, "kept": len(rows), "left": left, "first": first}


def _finish(stream: CrystalStream, folder: Path, names: list[str]) -> None:
    """Say what the labels of all shards are, and which files are the data set."""
    shards = [PreparedData.load(folder / name) for name in names]
    labels = dict.fromkeys(name for shard in shards for name in shard.labels)
    values = {
        name: np.concatenate([
            shard.labels[name].numpy()
            if name in shard.labels
            else np.full(len(shard.split), np.nan, dtype=np.float32)
            for shard in shards
        ])
        for name in labels
    }  # fmt: skip
    training = np.concatenate([shard.split.numpy() == 0 for shard in shards])
    conditions = described("crystal", values, training, stream.all_units(), stream.wanted_labels())
    write_index(folder, stream.name, "crystal", stream.source, conditions, names)
    ShardedData.load(folder)  # finds out now whether it can be read
