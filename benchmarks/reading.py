"""CPU time of reading ordinary CIFs: this package beside ASE's and pymatgen's own readers.

The files are written here as generators write them: one crystal a file, 1 to 20 atoms, half with
all atoms in P1 and half with symmetry operators; there are 400 different ones, over and over. Every
way reads the same files in one run, and says how many it could read.

    python benchmarks/reading.py --num 10000 --json benchmarks/results/reading.json
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.cif import parse_cif
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifParser, CifWriter
from relaxed_rows import write_json

from adit_plugins.structures.reading import iter_entries

GROUPS = {  # with the site of the second element; the first is at the origin
    "P-1": (0.5, 0.5, 0.5), "P2_1/c": (0.3, 0.2, 0.1), "Cmcm": (0, 0.3, 0.25),
    "I4/mmm": (0, 0, 0.35), "R-3m": (0, 0, 0.4), "P6_3/mmc": (1 / 3, 2 / 3, 0.25),
    "Fm-3m": (0.5, 0.5, 0.5), "F-43m": (0.25, 0.25, 0.25),
}  # fmt: skip
DIFFERENT = 400
ELEMENTS = ("Li", "O", "Na", "Cl", "Mg", "Si", "S", "Fe", "Ti", "Ba")


def write_cifs(folder: Path, num: int) -> None:
    """Write crystals with positions at random, every second one by its symmetry operators."""
    rng = np.random.default_rng(0)
    texts = []
    for i in range(min(num, DIFFERENT)):
        if i % 2:
            lattice = Lattice.from_parameters(*rng.uniform(4, 9, 3), *rng.uniform(70, 110, 3))
            size = int(rng.integers(1, 21))
            elements = rng.choice(ELEMENTS, size).tolist()
            texts.append(str(CifWriter(Structure(lattice, elements, rng.random((size, 3))))))
        else:
            texts.append(symmetric(list(GROUPS)[i // 2 % len(GROUPS)], rng))
    for i in range(num):
        (folder / f"gen_{i}.cif").write_text(texts[i % len(texts)])


def symmetric(group: str, rng: np.random.Generator) -> str:
    """A crystal of two elements on special positions of a space group."""
    a, b, c = rng.uniform(4, 9, 3)
    if group in ("P6_3/mmc", "R-3m"):
        lattice = Lattice.hexagonal(a, c)
    elif group == "I4/mmm":
        lattice = Lattice.tetragonal(a, c)
    elif group in ("Fm-3m", "F-43m"):
        lattice = Lattice.cubic(a)
    elif group == "Cmcm":
        lattice = Lattice.orthorhombic(a, b, c)
    else:
        lattice = Lattice.monoclinic(a, b, c, rng.uniform(92, 115))
    first, second = rng.choice(ELEMENTS, 2, replace=False)
    sites = [(0, 0, 0), GROUPS[group]]
    structure = Structure.from_spacegroup(group, lattice, [first, second], sites)
    return str(CifWriter(structure, symprec=0.01))


def by_this_package(folder: Path) -> int:
    """As every command reads."""
    return sum(entry.atoms is not None for entry in iter_entries(folder, []))


def by_ase(folder: Path) -> int:
    """ASE's parser, block by block; nothing is compared with the formula."""
    count = 0
    for path in sorted(folder.iterdir()):
        with path.open(encoding="utf-8", errors="replace") as file:
            for block in parse_cif(file):
                count += len(block.get_atoms()) > 0
    return count


def by_pymatgen(folder: Path) -> int:
    """pymatgen's parser, with its comparison of the composition."""
    count = 0
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(ValueError):  # atoms upon each other
            parser = CifParser.from_str(path.read_text())
            count += len(parser.parse_structures(primitive=False))
    return count


def main() -> int:
    """Time all ways and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=10_000, help="files")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    ways: dict[str, Callable[[Path], int]] = {
        "adit": by_this_package, "ase": by_ase, "pymatgen": by_pymatgen,
    }  # fmt: skip
    result: dict[str, Any] = {
        "num": args.num,
        "versions": {name: version(name) for name in ("ase", "gemmi", "pymatgen")},
        "machine": platform.machine(),
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_cifs(folder, args.num)
        for name, read in ways.items():
            start = time.process_time()
            count = read(folder)
            seconds = time.process_time() - start
            result[name] = {"cpu_seconds": round(seconds, 1), "read": count}
            print(name, result[name], flush=True)
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
