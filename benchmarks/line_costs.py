"""Where the time of a campaign goes: CPU seconds of each part, in one process of one thread.

    python benchmarks/line_costs.py --num 200 --json benchmarks/results/line_costs.json

Generates so many crystals and so many molecules and does with them what `adit discover` does, its
files and its page at the end included, by the serial executor. A part's seconds are its own: what
it calls of another part counts there. "rest" is everything that has no name here. Loading weights,
tables and packages is in "loading", as far as it is in none of the parts.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from relaxed_rows import write_json

import adit_plugins.report.write
from adit_plugins import ADiTGenerator
from adit_plugins.campaign import Campaign, Resources, Settings, files
from adit_plugins.campaign.sources import GeneratorSource

# Part -> where its work is called from: module, and the attribute that is looked up there.
PARTS: dict[str, list[tuple[str, str]]] = {
    "sampling": [("adit_plugins.campaign.sources", "GeneratorSource.entries")],
    "crystal checks": [("adit_plugins.campaign.work", "_screen_one")],
    "reduced cells": [("adit_plugins.matching.matcher", "reduce_cell")],
    "novelty": [("adit_plugins.matching.fingerprints", "CrystalFingerprints.contains")],
    "molecule checks": [("adit_plugins.campaign.work", "check")],
    "duplicates": [
        ("adit_plugins.campaign.duplicates", "Duplicates.crystal"),
        ("adit_plugins.campaign.duplicates", "Duplicates.molecule"),
        ("adit_plugins.campaign.campaign", "mark_relaxed_duplicates"),
    ],
    "pre-filter": [("adit_plugins.campaign.work", "prefilter_and_place")],
    "relaxation": [("adit_plugins.campaign.work", "relax_and_place")],
    "hull": [("adit_plugins.hull.energies", "place")],
    "store": [
        ("adit_plugins.campaign.store", f"Store.{name}") for name in ("add", "update", "_query")
    ],
    "files": [
        ("adit_plugins.campaign.files", "write_files"),
        ("adit_plugins.report.write", "write_campaign_report"),
    ],
}


class Clock:
    """CPU seconds by part, each part's own."""

    def __init__(self) -> None:
        self.own: defaultdict[str, float] = defaultdict(float)
        self._stack = ["rest"]
        self._since = time.process_time()

    def _switch(self) -> None:
        now = time.process_time()
        self.own[self._stack[-1]] += now - self._since
        self._since = now

    def enter(self, part: str) -> None:
        """What follows is this part's."""
        self._switch()
        self._stack.append(part)

    def leave(self) -> None:
        """What follows is that of the part before."""
        self._switch()
        self._stack.pop()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, on the clock of a part; a generator is on it while it works."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                result = function(*args, **kwargs)
            finally:
                self.leave()
            return self._steps(part, result) if hasattr(result, "__next__") else result

        return call

    def _steps(self, part: str, steps: Any) -> Any:
        while True:
            self.enter(part)
            try:
                step = next(steps)
            except StopIteration:
                return
            finally:
                self.leave()
            yield step


def watch(clock: Clock) -> None:
    """Put every part on the clock."""
    for part, places in PARTS.items():
        for module, name in places:
            owner: Any = importlib.import_module(module)
            *path, last = name.split(".")
            for each in path:
                owner = getattr(owner, each)
            setattr(owner, last, clock.timed(part, getattr(owner, last)))


def run(args: argparse.Namespace, folder: Path, clock: Clock) -> dict[str, int]:
    """Run a campaign to its end and count its rows."""
    clock.enter("loading")
    options = {"seed": args.seed, "checkpoint": args.checkpoint, "batch_size": None}
    makers = [ADiTGenerator(kind=kind, **options) for kind in args.kinds]
    source = GeneratorSource(makers, args.num)
    clock.leave()
    settings = Settings(
        args.relaxer, prefilter=args.prefilter, prefilter_limit=args.prefilter_limit
    )
    means = Resources(executor="serial")
    with Campaign.create(folder, source, settings, means) as campaign:
        campaign.run()
        files.write_files(campaign.store)
        adit_plugins.report.write.write_campaign_report(campaign.store)
        rows = list(campaign.store.verdicts())
    return {
        "structures": len(rows),
        "relaxed": sum(bool(row.get("relaxed")) for row in rows),
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=200, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=["crystal", "molecule"])
    parser.add_argument("--checkpoint", default="adit-joint")
    parser.add_argument("--relaxer", default="chgnet")
    parser.add_argument("--prefilter", default="mace-adit")
    parser.add_argument("--prefilter-limit", type=float, default=0.2, help="eV/atom")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock = Clock()
    watch(clock)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(args, Path(folder), clock)
    clock.enter("end")
    order = sorted(clock.own.items(), key=lambda item: -item[1])
    seconds = {part: round(used, 2) for part, used in order}
    total = sum(seconds.values())
    results = {
        "settings": {key: value for key, value in vars(args).items() if key != "json"},
        "hardware": f"{platform.machine()} CPU, one thread, other programs beside it",
        "counts": counts,
        "wall_seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(total, 1),
        "parts": {
            part: {"cpu_seconds": used, "percent": round(100 * used / total, 1)}
            for part, used in seconds.items()
        },
    }
    write_json(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
