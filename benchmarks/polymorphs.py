"""Known polymorphs of simple compounds: which does a search find, and where do they rank?

    python benchmarks/polymorphs.py --out polymorphs --json benchmarks/results/polymorphs.json \\
        --picture docs/images/polymorphs.png

The prototypes are textbook cells that take part as `--reference`; they are named in the table, and
"found" counts the samples that ended in them. Folders of searches go on where they were ended.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.spacegroup import crystal
from ase.visualize.plot import plot_atoms
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from relaxed_rows import write_json

from adit_plugins import predict
from adit_plugins.prediction.results import Predictions

COLUMNS = 4  # of the picture


def tetragonal(symbols: str, group: int, a: float, c: float, *sites: tuple[float, ...]) -> Atoms:
    """A crystal of two elements, the first on the first site."""
    return lattice(symbols, group, (a, a, c, 90, 90, 90), *sites)


def hexagonal(symbols: str, group: int, a: float, c: float, *sites: tuple[float, ...]) -> Atoms:
    """The same of a hexagonal cell."""
    return lattice(symbols, group, (a, a, c, 90, 90, 120), *sites)


def lattice(symbols: str, group: int, cell: tuple[float, ...], *sites: tuple[float, ...]) -> Atoms:
    """The same of any cell: the primitive one."""
    return crystal(symbols.split(), sites, spacegroup=group, cellpar=cell, primitive_cell=True)


def prototypes() -> dict[str, dict[str, Atoms]]:
    """By formula, structures that are known by name; angstrom and degrees."""
    silica = {
        "alpha-quartz": hexagonal(
            "Si O", 154, 4.913, 5.405, (0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)
        ),
        "beta-quartz": hexagonal("Si O", 180, 5.00, 5.46, (0.5, 0, 0), (0.2087, 0.4174, 0.5)),
        "alpha-cristobalite": tetragonal(
            "Si O", 92, 4.978, 6.948, (0.3003, 0.3003, 0), (0.2392, 0.1044, 0.1787)
        ),
        "beta-cristobalite": tetragonal("Si O", 122, 5.04, 7.13, (0, 0, 0), (0.09, 0.25, 0.125)),
        "tridymite": hexagonal(
            "Si O O", 194, 5.03, 8.22, (1 / 3, 2 / 3, 0.44), (1 / 3, 2 / 3, 0.25), (0.5, 0, 0)
        ),
        "stishovite": tetragonal("Si O", 136, 4.18, 2.667, (0, 0, 0), (0.306, 0.306, 0)),
        "seifertite": lattice(
            "Si O", 60, (4.097, 5.046, 4.495, 90, 90, 90), (0, 0.152, 0.25), (0.266, 0.381, 0.425)
        ),
    }
    titania = {
        "rutile": tetragonal("Ti O", 136, 4.594, 2.959, (0, 0, 0), (0.305, 0.305, 0)),
        "anatase": tetragonal("Ti O", 141, 3.785, 9.514, (0, 0, 0), (0, 0, 0.208)),
        "columbite": lattice(
            "Ti O", 60, (4.54, 5.49, 4.90, 90, 90, 90), (0, 0.178, 0.25), (0.276, 0.41, 0.425)
        ),
        "baddeleyite": lattice(
            "Ti O O", 14, (4.64, 4.76, 4.81, 90, 99.2, 90),
            (0.28, 0.05, 0.21), (0.07, 0.33, 0.34), (0.45, 0.76, 0.48),
        ),
        "bronze (B)": lattice(
            "Ti Ti O O O O", 12, (12.16, 3.73, 6.51, 90, 107.3, 90),
            (0.197, 0, 0.288), (0.100, 0, 0.706), (0.136, 0, 0.004), (0.264, 0, 0.655),
            (0.058, 0, 0.371), (0.361, 0, 0.304),
        ),
        "hollandite": tetragonal(
            "Ti O O", 87, 10.18, 2.97, (0.348, 0.167, 0), (0.153, 0.201, 0), (0.541, 0.168, 0)
        ),
        "fluorite": bulk("TiO2", "fluorite", 4.8),
    }  # fmt: skip
    nitride = {
        "wurtzite": bulk("AlN", "wurtzite", 3.11, c=4.98),
        "zincblende": bulk("AlN", "zincblende", 4.38),
        "rocksalt": bulk("AlN", "rocksalt", 4.06),
    }
    salts = {
        name: {
            "rocksalt": bulk(name, "rocksalt", a),
            "CsCl type": bulk(name, "cesiumchloride", b),
        }
        for name, a, b in (("NaCl", 5.64, 3.45), ("CsCl", 7.0, 4.12))
    }
    return {"SiO2": silica, "TiO2": titania, "AlN": nitride, **salts}


def searched(formula: str, known: dict[str, Atoms], args: argparse.Namespace) -> Predictions:
    """Search for a formula with its known structures beside."""
    folder = args.out / formula
    reference = args.out / f"{formula}-known"
    reference.mkdir(parents=True, exist_ok=True)
    for name, atoms in known.items():
        write(reference / f"{name}.cif", atoms)
    return predict(
        formula, args.num, relaxer="chgnet", keep=args.keep, reference=reference, out=folder,
        resume=folder.exists(), workers=0, checkpoint=args.checkpoint, seed=args.seed,
    )  # fmt: skip


def short(name: str) -> str:
    """The name of the file of a known structure."""
    return name.split(".cif")[0]


def row(rank: int, each: Any) -> dict[str, Any]:
    """What the table says of a structure."""
    names = ("space_group", "space_group_symbol", "num_found", "potential", "converged")
    return {
        "rank": rank,
        "known_as": sorted(short(name) for name in each.known_as),
        **{name: getattr(each, name) for name in names},
        "num_atoms": len(each.structure),
        "energy_above_lowest_meV": round(1000 * each.energy_above_lowest, 1),
    }


def draw(found: dict[str, Predictions], path: Path) -> None:
    """Eight conventional cells of each known structure that samples ended in."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    named = [
        (formula, made.about.num_samples, each)
        for formula, made in found.items()
        for each in made
        if each.known_as and each.num_found
    ]
    rows = -(-len(named) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(12, 3 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (formula, samples, each) in zip(axes.flat, named, strict=False):
        analyzer = SpacegroupAnalyzer(each.structure, each.symmetry_tolerance)
        cell = analyzer.get_conventional_standard_structure().to_ase_atoms()
        plot_atoms(cell * (2, 2, 2), axis, rotation="-85x,20y,4z", radii=0.5, show_unit_cell=0)
        name = short(each.known_as[0])
        axis.set_title(
            f"{formula}, {name}\n{each.space_group_symbol}, {each.num_found} of {samples} samples",
            fontsize=10,
        )
    figure.tight_layout()
    figure.savefig(path, dpi=70, metadata={"Software": None})


def main() -> None:
    """Search for each formula; write the best, and all that are known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the searches")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--checkpoint", default="adit-joint")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--keep", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=8, help="of each formula, and all known ones")
    parser.add_argument("--picture", type=Path, help="PNG of the known structures that were found")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results, every = {}, {}
    for formula, known in prototypes().items():
        found = every[formula] = searched(formula, known, args)
        rows = [row(rank, each) for rank, each in enumerate(found, start=1)]
        results[formula] = {
            "samples": found.about.num_samples,
            "relaxed": found.about.num_relaxed,
            "distinct": len(found),
            "structures": [r for r in rows if r["rank"] <= args.rows or r["known_as"]],
        }
    about = {"seed": args.seed, "keep": args.keep, "hardware": f"{platform.machine()} CPU"}
    write_json({**about, "results": results}, args.json)
    if args.picture is not None:
        draw(every, args.picture)


if __name__ == "__main__":
    main()
