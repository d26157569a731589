"""Samples a second of `adit generate --shard-size` by workers, and the memory that it takes.

    python benchmarks/generation_shards.py --num 512 --shard-size 64 --workers 1 2

Each run starts its processes anew, as a user's would; the first number in the same run, one worker,
is what the others are compared with. The driver's memory is that of its whole life, so the second
run cannot have less than the first.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from relaxed_rows import write_json

from adit_plugins import ADiTGenerator
from adit_plugins.campaign.executors import make_executor
from adit_plugins.generation.parallel import LONGEST
from adit_plugins.generation.shards import ShardedGeneration, read_shards


def measure(generator: ADiTGenerator, num: int, shard_size: int, workers: int) -> dict[str, Any]:
    """Make the samples in a folder that goes again."""
    with tempfile.TemporaryDirectory() as folder:
        plan = ShardedGeneration.open(Path(folder) / "out", generator, num, shard_size)
        executor = make_executor("processes", workers, LONGEST)
        began = time.monotonic()
        plan.run(executor)
        seconds = time.monotonic() - began
        executor.shutdown()
        digest = hashlib.sha256()
        for sample in read_shards(plan.folder):
            digest.update(f"{sample.id} {sample.atomic_numbers.tolist()}".encode())
            digest.update(sample.positions.tobytes())
    return {
        "workers": workers,
        "samples": num,
        "seconds": round(seconds, 1),
        "samples_per_second": round(num / seconds, 2),
        "sha256_of_samples": digest.hexdigest()[:16],
        "driver_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, nargs="+", default=[512])
    parser.add_argument("--shard-size", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--checkpoint")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    generator = ADiTGenerator(
        checkpoint=args.checkpoint, num_steps=args.num_steps, precision="bfloat16"
    )
    rows = [
        measure(generator, num, args.shard_size, workers)
        for num in args.num
        for workers in args.workers
    ]
    write_json({"shard_size": args.shard_size, "steps": args.num_steps, "rows": rows}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
