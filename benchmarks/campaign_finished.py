"""What is done with a finished campaign of many rows: its merge, its candidates, its page.

    python benchmarks/campaign_scale.py --crystals crystals.parquet --num 100000 --folder RUN
    python benchmarks/campaign_finished.py RUN --merge \\
        --json benchmarks/results/campaign_100000_merge.json
    python benchmarks/campaign_finished.py RUN --until 1000 10000 100000 \\
        --json benchmarks/results/campaign_until.json
    python benchmarks/campaign_finished.py RUN --estimate 1000000 \\
        --json benchmarks/results/campaign_million.json
    python benchmarks/campaign_finished.py RUN --report --json JSON

`--merge` cuts the rows into two shards, merges these, and compares the verdicts with the campaign's
own. `--until` takes the first so many rows as they are after their last chunk, and measures what a
campaign that ends with enough candidates below 0.1 eV/atom did after each chunk with one of these
(judge all rows), and what it does instead (count those of the chunk). `--estimate` draws straight
lines through what the campaign took at its marks, and follows them: each step's milliseconds at the
last of so many rows, and of all of them together. `--report` writes the page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any

from campaign_marks import MARKS, cpu_seconds, load_average, memory, peak
from json_output import write_json

from adit_plugins.campaign import Settings, Store
from adit_plugins.campaign.duplicates import mark_relaxed_duplicates
from adit_plugins.campaign.found import Found
from adit_plugins.campaign.merge import merge
from adit_plugins.campaign.settings import CHUNK_SIZE
from adit_plugins.campaign.store import STORE, Row
from adit_plugins.report import write_campaign_report

MARKED = ("store", "duplicates")
MS_PER_HOUR = 3.6e6
LIMIT = 0.1  # eV/atom above the hull
NUM_CHUNKS = 50  # counted, of the last rows
OWN_TABLES = ("keys", "text_key_values", "number_key_values", "species")  # of ASE, by row


def part(folder: Path, out: Path, first: int, last: int, **metadata: Any) -> Store:
    """Make a store of some rows of a campaign, by their ids, and return it open."""
    out.mkdir(parents=True)
    shutil.copy(folder / STORE, out / STORE)
    connection = sqlite3.connect(out / STORE)
    for table in ("systems", *OWN_TABLES):
        connection.execute(f"DELETE FROM {table} WHERE id<? OR id>?", (first, last))  # noqa: S608
    connection.commit()
    connection.execute("VACUUM")
    connection.close()
    store = Store(out)
    store.change_metadata(total=len(store), **metadata)
    return store


def timed(step: Callable[[], Any]) -> dict[str, float]:
    """What a step takes."""
    begun, used = time.perf_counter(), cpu_seconds()
    step()
    return {
        "seconds": round(time.perf_counter() - begun, 4),
        "cpu_seconds": round(cpu_seconds() - used, 4),
    }


def measure_merge(folder: Path, temporary: Path) -> dict[str, Any]:
    """Cut a campaign in two and merge it."""
    with Store(folder, read_only=True) as store:
        num = len(store)
        ids = store.ids()
        before = list(store.verdicts())
    bounds = ((ids[0], ids[num // 2 - 1]), (ids[num // 2], ids[-1]))
    shards = [temporary / f"shard-{number}-of-2" for number in (0, 1)]
    for number, (shard, (first, last)) in enumerate(zip(shards, bounds, strict=True)):
        part(folder, shard, first, last, shard=[number, 2]).close()
    out = temporary / "merged"
    out.mkdir()
    memory_before = memory()
    took = timed(lambda: merge(shards, out).close())
    with Store(out, read_only=True) as merged:
        same = sum(one == other for one, other in zip(before, merged.verdicts(), strict=True))
    return {
        "rows": num,
        "same_verdicts": same,
        **took,
        "cpu_ms_per_row": round(1000 * took["cpu_seconds"] / num, 3),
        "memory_mb_before": round(memory_before, 1),
        "peak_memory_mb": peak(),
    }


def measure_until(folder: Path, temporary: Path, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Judge all rows, and count those of chunks, at some numbers of rows."""
    with Store(folder, read_only=True) as whole:
        ids = whole.ids()
        settings = whole.metadata["settings"] | {"max_hull": LIMIT, "until": len(ids)}
    return [
        _until(part(folder, temporary / str(size), ids[0], ids[size - 1], settings=settings))
        for size in sizes
    ]


def judge(store: Store) -> int:
    """Return the number of candidates, as it was found after each chunk."""
    mark_relaxed_duplicates(store, LIMIT)
    return store.num_found()


def _until(store: Store) -> dict[str, Any]:
    with store:
        judge(store)  # what it writes, it writes once
        judged = timed(lambda: judge(store))
        relaxed = store.ranked("energy_above_hull", "relaxed")
        near = len(store.ranked("energy_above_hull", "relaxed", LIMIT))
        counts = Found(store, Settings(**store.metadata["settings"]))
        last = sorted(relaxed)[-NUM_CHUNKS * CHUNK_SIZE :]
        rows = {row.id: Row(row.toatoms(), row.key_value_pairs) for row in store.rows(ids=last)}
        chunks = [last[start : start + CHUNK_SIZE] for start in range(0, len(last), CHUNK_SIZE)]

        def count() -> None:
            for chunk in chunks:
                counts.add({row_id: rows[row_id] for row_id in chunk})

        counted = timed(count)
        num_chunks = len(relaxed) / CHUNK_SIZE
        with_one = num_chunks * (1 - (1 - near / len(relaxed)) ** CHUNK_SIZE)
        each = judged["cpu_seconds"]
        return {
            "rows": len(store),
            "relaxed": len(relaxed),
            "below_the_limit": near,
            "cpu_ms_to_judge_all": round(1000 * each, 1),
            "cpu_ms_to_count_a_chunk": round(1000 * counted["cpu_seconds"] / len(chunks), 2),
            # From the first row to these: judging takes time in proportion to the rows.
            "chunks_with_one_below": round(with_one),
            "cpu_seconds_to_judge_after_each": round(with_one * each / 2, 1),
            "cpu_seconds_to_count": round(num_chunks * counted["cpu_seconds"] / len(chunks), 1),
        }


def estimate(folder: Path, num: int) -> dict[str, Any]:
    """Say what a campaign of so many rows takes if each step goes on as it went."""
    marks = [json.loads(line) for line in (folder / MARKS).read_text().splitlines()]
    ends = [mark["structures"] for mark in marks]
    middles = [(end + before) / 2 for end, before in zip(ends, [0, *ends], strict=False)]
    parts = {name: [mark["of_these_ms"][name] for mark in marks] for name in MARKED}
    everything = [mark["cpu_ms_per_structure"] for mark in marks]
    rest = [all_ - sum(each) for all_, *each in zip(everything, *parts.values(), strict=True)]
    steps = {**parts, "checks, hull, the rest": rest, "all": everything}
    lines = {name: linear_regression(middles, values) for name, values in steps.items()}
    return {
        "measured_rows": ends[-1],
        "cpu_ms_per_row": {
            name: {
                "measured, first mark": round(values[0], 2),
                "measured, last mark": round(values[-1], 2),
            }
            for name, values in steps.items()
        },
        "estimated_rows": num,
        "estimated_ms_at_the_last": {
            name: round(line.intercept + line.slope * num, 2) for name, line in lines.items()
        },
        "estimated_cpu_hours": {
            name: round((line.intercept + line.slope * num / 2) * num / MS_PER_HOUR, 2)
            for name, line in lines.items()
        },
        "memory_mb_first_and_last_mark": [marks[0]["memory_mb"], marks[-1]["memory_mb"]],
        "memory_mb_per_1000_rows": round(
            1000 * linear_regression(ends, [mark["memory_mb"] for mark in marks]).slope, 3
        ),
    }


def measure_report(folder: Path) -> dict[str, Any]:
    """Write the page of a campaign."""
    with Store(folder, read_only=True) as store:
        num, before = len(store), memory()
        took = timed(lambda: write_campaign_report(store))
    size = (folder / "report.html").stat().st_size / 1e6
    about = {"rows": num, "mb": round(size, 1), "memory_mb_before": round(before, 1)}
    return about | took | {"peak_memory_mb": peak()}


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a finished campaign")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--merge", action="store_true")
    chosen.add_argument("--until", type=int, nargs="+", metavar="ROWS")
    chosen.add_argument("--estimate", type=int, metavar="ROWS")
    chosen.add_argument("--report", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder.parent) as temporary:
        result: Any
        if args.merge:
            result = measure_merge(args.folder, Path(temporary))
        elif args.estimate:
            result = estimate(args.folder, args.estimate)
        elif args.until:
            result = {"sizes": measure_until(args.folder, Path(temporary), args.until)}
        else:
            result = measure_report(args.folder)
    write_json({"load_at_the_end": load_average(), **result}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
