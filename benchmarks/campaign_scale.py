"""Memory and time of a campaign as it grows: real driver and store, a potential that is free.

    python benchmarks/campaign_scale.py --crystals crystals.parquet --num 100000 --folder RUN \
        --json benchmarks/results/campaign_100000.json
    python benchmarks/campaign_scale.py --num 10000 --json benchmarks/results/campaign_scale.json
    python benchmarks/campaign_scale.py --num 2000 --workers 1 --json JSON
    python benchmarks/campaign_scale.py --files 100000 --json benchmarks/results/campaign_files.json
    python benchmarks/campaign_scale.py --merge 4000 --json benchmarks/results/campaign_merge.json
    python benchmarks/campaign_scale.py --records 10000 --json JSON

The first makes its structures from the crystals of a table (`campaign_structures.Replaced`): few
are duplicates. It keeps the campaign in a folder, so that the same command goes on after a kill;
`campaign_finished.py` measures more of that. The others make four of 34 elements on the sites of a
distorted Heusler cell, so that formulas come again and many are duplicates.

The third (JSON is benchmarks/results/campaign_driver.json) tells the driver's part. The fourth
writes the files of a campaign of so many rows, which are those of a small campaign over and over,
beside what ASE takes to write one of these files from its own database. The fifth makes a campaign
in two shards and merges them. What the first, second and fourth have written is read again as
structures, each file by a process of its own, beside what `json.load` takes for the same JSON. The
sixth (benchmarks/results/campaign_records.json) reads a `candidates.json` of so many records, those
of a small campaign over and over.

The relaxer returns the input with a made-up energy. Structures are checked and relaxed in one
process, so its memory is all there is; the files of more than 10,000 rows are rendered by several.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from campaign_marks import (
    Marks,
    cpu_seconds,
    load_average,
    memory,
    own_cpu_seconds,
    peak,
    timed_steps,
)
from campaign_structures import Replaced, structure, structures
from json_output import write_json
from rich.console import Console

from adit_plugins.campaign import Campaign, Resources, Settings, Store, StructuresSource
from adit_plugins.campaign.files import write_files
from adit_plugins.campaign.merge import merge
from adit_plugins.campaign.report import print_tables
from adit_plugins.campaign.store import Row, has_store
from adit_plugins.processes import available_cores
from adit_plugins.relax.results import RelaxResult, finished
from adit_plugins.structures import InputError, iter_entries

__all__ = ["free", "measure", "structure", "structures"]
KEYS = ("structure_valid", "composition_valid", "unique", "novel", "relaxed", "hull_problem")


class FreeRelaxer:
    """Moves nothing; the energy is a number."""

    name = "free"

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        """Return each structure as if it had been relaxed."""
        return [
            finished(
                atoms, atoms, -4.0 * len(atoms), np.zeros((len(atoms), 3)), np.zeros(6),
                reason="converged", num_steps=1, potential=self.name, seconds=0.0,
                convention="mp2020",
            )
            for atoms in batch
        ]  # fmt: skip


def free() -> FreeRelaxer:
    """A factory for `--relaxer campaign_scale:free`."""
    return FreeRelaxer()


def measure(
    num: int,
    folder: Path,
    every: int,
    workers: int,
    make: Callable[[int], Iterable[Atoms]] = structures,
) -> dict[str, Any]:
    """Run a campaign, or what is left of one, and look at it every so many structures.

    With workers, what this process takes is what the driver does.
    """
    source, settings = StructuresSource(make, num), Settings("campaign_scale:free")
    means = Resources("processes" if workers else "serial", workers or None, chunk_size=64)
    used = own_cpu_seconds()
    with ExitStack() as stack:
        steps = stack.enter_context(timed_steps())
        marks = Marks(folder, every, steps)
        campaign = stack.enter_context(
            Campaign.open(folder, source, means, ["campaign_scale:free"])
            if has_store(folder)
            else Campaign.create(folder, source, settings, means)
        )
        campaign.run(marks)
        marks.finish()
        own = own_cpu_seconds() - used
        before_files = memory()
        files, tables = timed(write_files, campaign.store), timed(write_tables, campaign.store)
        return {
            "num": num,
            "cores": available_cores(),
            "load_at_the_end": load_average(),
            "seconds": round(marks.seconds, 1),
            "cpu_seconds": round(marks.cpu_seconds, 1),
            "cpu_ms_per_structure": round(1000 * marks.cpu_seconds / num, 2),
            "workers": workers,
            **({"cpu_seconds_of_this_process": round(own, 1)} if workers else {}),
            "cpu_seconds_relaxed_duplicates": round(steps["relaxed_duplicates"], 1),
            "files": files,
            "tables": tables,
            "store_mb": round(campaign.store.path.stat().st_size / 1e6, 1),
            "rows": verdicts(campaign.store),
            "memory_mb_before_files": round(before_files, 1),
            "memory_mb_after_files": round(memory(), 1),
            "peak_memory_mb": peak(),
            "read_again": read_again(folder),
            "marks": marks.marks,
        }


def timed(step: Callable[[Store], Any], store: Store) -> dict[str, float]:
    """What a step takes, of all processes."""
    begun, used = time.perf_counter(), cpu_seconds()
    step(store)
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(cpu_seconds() - used, 1),
    }


def write_tables(store: Store) -> None:
    """Print the tables that the command ends with, for nobody."""
    print_tables(store, Console(file=io.StringIO()))


def verdicts(store: Store) -> dict[str, int]:
    """How many rows there are of each verdict."""
    found = Counter(key for columns in store.verdicts() for key in KEYS if columns.get(key))
    formulas = len(set(store.texts("composition").values()))
    return {**found, "formulas": formulas, "candidates": len(store.candidates())}


def measure_files(num: int, folder: Path) -> dict[str, Any]:
    """Write the files of a campaign with so many rows."""
    source, means = StructuresSource(structures, 1000), Resources("serial", chunk_size=64)
    with Campaign.create(folder, source, Settings("campaign_scale:free"), means) as campaign:
        campaign.run()
        store = campaign.store
        fill(store, num)
        size = store.path.stat().st_size
        begun, used = time.perf_counter(), cpu_seconds()
        written = write_files(store)
        seconds, used = time.perf_counter() - begun, cpu_seconds() - used
        candidates = len(store.candidates())
        read = read_again(folder)
    return {
        "rows": num,
        "candidates": candidates,
        "cores": available_cores(),
        "load_before": load_average(),
        "seconds": round(seconds, 1),
        "ms_per_row": round(1000 * seconds / num, 3),
        "cpu_ms_per_row_all_processes": round(1000 * used / num, 3),
        "store_mb": round(size / 1e6, 1),
        "written_mb": round(sum(each.stat().st_size for each in written if each.is_file()) / 1e6),
        "kb_per_row": {
            each.name: round(each.stat().st_size / 1e3 / num, 3)
            for each in written
            if each.is_file()
        },
        "peak_memory_mb": peak(),
        "ase_ms_per_row_relaxed_extxyz_alone": ase_writes(store.path, folder, 2000),
        "read_again": read,
    }


def measure_merge(num: int, folder: Path) -> dict[str, Any]:
    """Make two shards of a campaign and merge them."""
    source, means = StructuresSource(structures, num), Resources("serial", chunk_size=64)
    shards = []
    for number in (0, 1):
        shards.append(folder / f"shard-{number}-of-2")
        shards[-1].mkdir()
        settings = Settings("campaign_scale:free")
        with Campaign.create(shards[-1], source, settings, means, (number, 2)) as campaign:
            campaign.run()
    out = folder / "merged"
    out.mkdir()
    begun, used = time.perf_counter(), cpu_seconds()
    merged = merge(shards, out)
    rows = len(merged)
    merged.close()
    seconds, used = time.perf_counter() - begun, cpu_seconds() - used
    return {
        "rows": rows,
        "load_before": load_average(),
        "seconds": round(seconds, 1),
        "cpu_ms_per_row": round(1000 * used / rows, 3),
        "memory_mb_after": round(memory(), 1),
    }


def measure_records(num: int, folder: Path) -> dict[str, Any]:
    """Read a `candidates.json` with so many records."""
    source, means = StructuresSource(structures, 1000), Resources("serial", chunk_size=64)
    with Campaign.create(folder, source, Settings("campaign_scale:free"), means) as campaign:
        campaign.run()
        write_files(campaign.store)
    path = folder / "candidates.json"
    before, after = path.read_text().split('"crystals": [')
    crystals, after = after.split("\n ],")  # a record a line
    records = [each.rstrip(",") for each in crystals.splitlines() if each]
    with path.open("w", encoding="utf-8") as file:
        file.write(before + '"crystals": [')
        for number in range(num):
            file.write(("," if number else "") + "\n" + records[number % len(records)])
        file.write("\n ]," + after)
    return {"records": num, "read_again": read_again(folder, READERS[:1])}


def fill(store: Store, num: int) -> None:
    """Add the rows of a store to it again until there are so many."""
    first = [Row(row.toatoms(), dict(row.key_value_pairs), dict(row.data)) for row in store.rows()]
    for row in first:
        row.atoms.info = {}
    while left := num - len(store):
        store.add(first[:left])


def ase_writes(database: Path, folder: Path, num: int) -> float:
    """Milliseconds a row that ASE takes to read its database and write extended XYZ."""
    begun = time.perf_counter()
    rows = ase.db.connect(database).select("relaxed=1", limit=num)
    ase.io.write(folder / "by_ase.extxyz", [row.toatoms() for row in rows])
    return round(1000 * (time.perf_counter() - begun) / num, 3)


def read_again(folder: Path, readers: Iterable[Reader] = ()) -> dict[str, dict[str, Any]]:
    """What reading files of a campaign takes, each in a fresh process.

    Returns:
        By what was done: structures or the error, CPU seconds, the largest memory in MB, and what
        of it the packages had before.
    """
    context, found = multiprocessing.get_context("spawn"), {}
    for name, reader in readers or READERS:
        with context.Pool(1) as pool:
            done = pool.apply(watched, (reader, folder / name))
        found[f"{name} by {reader.__name__}"] = done
    return found


def watched(reader: Callable[[Path], Any], path: Path) -> dict[str, Any]:
    """Read a file and say what that took."""
    reader(Path(__file__).parents[1] / "pyproject.toml")  # imports are no part of it
    before, used = peak(), time.process_time()
    said = reader(path)
    return {
        "mb": round(path.stat().st_size / 1e6, 1),
        "found": said,
        "cpu_seconds": round(time.process_time() - used, 2),
        "peak_memory_mb": peak(),
        "memory_mb_before": before,
    }


def count(path: Path) -> int | str:
    """The number of structures that the commands see in a file, or their error."""
    try:
        return sum(entry.atoms is not None for entry in iter_entries(path))
    except InputError as error:
        return str(error).replace(str(path), path.name)


def load(path: Path) -> str:
    """Read JSON as Python does, whole."""
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, MemoryError) as error:
        return type(error).__name__
    return f"{type(content).__name__} of {len(content)}"


Reader = tuple[str, Callable[[Path], Any]]  # name of a file, and what reads it
READERS: tuple[Reader, ...] = (
    ("candidates.json", count), ("relaxed.extxyz", count), ("candidates.json", load),
)  # fmt: skip


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: all in this one")
    parser.add_argument("--crystals", type=Path, metavar="PARQUET", help="to replace elements of")
    parser.add_argument("--folder", type=Path, help="keep the campaign here, or go on with it")
    parser.add_argument("--files", type=int, metavar="ROWS", help="only write files of so many")
    parser.add_argument("--merge", type=int, metavar="ROWS", help="only merge two shards")
    parser.add_argument("--records", type=int, metavar="ROWS", help="only read so many records")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # workers import the potential, too
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if args.files:
            result = measure_files(args.files, folder)
        elif args.merge:
            result = measure_merge(args.merge, folder)
        elif args.records:
            result = measure_records(args.records, folder)
        else:
            make = structures if args.crystals is None else Replaced.read(args.crystals)
            result = measure(args.num, folder, args.every, args.workers, make)
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
