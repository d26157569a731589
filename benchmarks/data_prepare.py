"""Memory and speed of `adit data prepare --shard-size`, and of drawing batches from its files.

    python benchmarks/data_prepare.py --data data/crystals.safetensors --num 10000 100000

Structures are those of the training split, each repeated with atoms moved by 0.02 angstrom, in an
extxyz. The numbers of one run are taken one after the other: where the memory is flat, the second
peak is the first. The peer in the same run is what holds everything: `SizeGroups` of one file.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import torch
from ase import Atoms
from relaxed_rows import write_json

from adit_model.data import PreparedData, SizeGroups
from adit_model.sharded_data import ShardedData, StreamedGroups
from adit_plugins.datasets.crystals import crystals
from adit_plugins.datasets.shards import prepare_shards
from adit_plugins.structures.samples import from_batch

BATCHES, TOKENS = 200, 2048


def structures(path: Path, num: int) -> Iterator[Atoms]:
    """Yield crystals near those of a prepared file."""
    groups = SizeGroups(PreparedData.load(path), "train", "cpu")
    made = 0
    while made < num:
        for size, rows in groups.batches(4000):
            for sample in from_batch(groups.batch(size, rows)):
                atoms = sample.to_ase()
                atoms.rattle(0.02, seed=made)
                atoms.info = {"energy_above_hull": 0.0 if made % 10 else 0.5, "number": made}
                yield atoms
                made += 1
                if made == num:
                    return


def write_source(data: Path, num: int, path: Path) -> None:
    """Write an extxyz, some structures at a time."""
    chunk: list[Atoms] = []
    with path.open("w") as file:
        for atoms in structures(data, num):
            chunk.append(atoms)
            if len(chunk) == 500:
                ase.io.write(file, chunk, format="extxyz")
                chunk = []
        ase.io.write(file, chunk, format="extxyz")


def anonymous_mb() -> float:
    """Memory that is no file's, of this process now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def drawn(groups: SizeGroups) -> float:
    """Batches a second."""
    generator, chosen = torch.Generator().manual_seed(0), random.Random(0)  # noqa: S311
    began = time.monotonic()
    for _ in range(BATCHES):
        groups.draw(TOKENS, generator, chosen.random())
    return BATCHES / (time.monotonic() - began)


def measure(data: Path, num: int, shard_size: int) -> dict[str, Any]:
    """Prepare, then draw batches."""
    with tempfile.TemporaryDirectory() as place:
        source, folder = Path(place) / "source.extxyz", Path(place) / "set"
        write_source(data, num, source)
        began = time.monotonic()
        summary = prepare_shards(crystals.stream(source), source, folder, shard_size)
        seconds = time.monotonic() - began
        row: dict[str, Any] = {
            "rows": num,
            "kept": summary.kept,
            "left_out": dict(summary.left),
            "rows_per_second": round(num / seconds, 1),
            "driver_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
        before = anonymous_mb()
        streamed = StreamedGroups(ShardedData.load(folder), "train", "cpu")
        row["streamed_batches_per_second"] = round(drawn(streamed), 1)
        row["streamed_mb"] = round(anonymous_mb() - before, 1)
        compare = ShardedData.load(folder)
        whole = PreparedData(
            "set", "crystal", torch.cat([s.atomic_numbers for s in compare.shards]),
            torch.cat([s.coords for s in compare.shards if s.coords is not None]),
            compare.num_atoms, compare.split,
            torch.cat([s.cell for s in compare.shards if s.cell is not None]),
        )  # fmt: skip
        before = anonymous_mb()
        resident = SizeGroups(whole, "train", "cpu")
        row["resident_mb"] = round(anonymous_mb() - before, 1)
        row["resident_batches_per_second"] = round(drawn(resident), 1)
    return row


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--num", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--shard-size", type=int, default=5_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [measure(args.data, num, args.shard_size) for num in args.num]
    write_json({"shard_size": args.shard_size, "rows": rows}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
