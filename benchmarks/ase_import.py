"""What our entry point costs everybody who imports `ase.io`: with it, and with it hidden.

    python benchmarks/ase_import.py --repeats 30 --json benchmarks/results/ase_import.json

Each import is a process of its own. In both kinds ASE is given its list of entry points through
the same wrapper, which leaves ours out in one; the two kinds take turns. Their difference is below
the noise of most machines, so our module is also timed alone, imported after ASE.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

CODE = """
import importlib.metadata, sys, time
original = importlib.metadata.entry_points

class Points:
    def select(self, group):
        return [p for p in original().select(group=group) if p.name != sys.argv[1]]

importlib.metadata.entry_points = lambda **groups: Points()
start = time.perf_counter()
import ase.io
took = time.perf_counter() - start
from ase.io.formats import ioformats
loaded = "torch" in sys.modules
for name in [name for name in sys.modules if name.startswith("adit_plugins")]:
    del sys.modules[name]
start = time.perf_counter()
import adit_plugins.hosts.ase_io
print(took, time.perf_counter() - start, "adit" in ioformats, loaded)
"""


def seconds(hidden: str) -> tuple[float, float]:
    """Import `ase.io` in a fresh process without the format `hidden`; then our module alone."""
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", CODE, hidden], check=True, capture_output=True, text=True
    )
    took, alone, present, torch_loaded = done.stdout.split()
    if (present == "True") == (hidden == "adit") or torch_loaded == "True":
        raise RuntimeError(
            f"the comparison does not hold: {done.stdout}; is the package installed?"
        )
    return float(took), float(alone)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seconds("nothing")  # the first reads the files from the disk
    times: dict[str, list[float]] = {"with": [], "without": []}
    alone = []
    for _ in range(arguments.repeats):
        took, ours = seconds("nothing")
        times["with"].append(took)
        alone.append(ours)
        times["without"].append(seconds("adit")[0])
    pairs = [a - b for a, b in zip(times["with"], times["without"], strict=True)]
    result = {
        "repeats": arguments.repeats,
        "median_ms_with": 1000 * statistics.median(times["with"]),
        "median_ms_without": 1000 * statistics.median(times["without"]),
        "fastest_ms_with": 1000 * min(times["with"]),
        "fastest_ms_without": 1000 * min(times["without"]),
        "median_ms_our_module_alone": 1000 * statistics.median(alone),
        "median_difference_ms": 1000 * statistics.median(pairs),
        "quartiles_difference_ms": [1000 * q for q in statistics.quantiles(pairs, n=4)],
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
