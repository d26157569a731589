"""Whether molecules have the property that the network was told, by DFT as in QM9.

    python benchmarks/conditions_molecules.py --data data/qm9.safetensors --num 8 \\
        --json benchmarks/results/conditions_molecules.json

Each property of a raw sample (nothing filtered, the geometry as it is) is computed by PySCF (`pip
install pyscf`) with B3LYP/6-31G(2df,p), as QM9's own values were; density fitting and a coarse grid
save most of the time, and how far they are from QM9's values on QM9's geometries is measured first.
The mean absolute error to the target stands beside the limits: random molecules of QM9, by their
own values, and samples that were told nothing. The polarizability takes three more calculations a
molecule, in a small field along each axis.

Molecules that the calculation does not finish are counted, and left out of the means.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.units import Hartree
from numpy.typing import NDArray
from sample_quality import described, write_json

from adit_model.data import SPLITS, PreparedData
from adit_plugins import ADiTGenerator, Sample

TARGETS = {
    "homo_lumo_gap": (5.0, 7.0, 9.0),
    "dipole_moment": (1.0, 3.0, 6.0),
    "polarizability": (65.0, 75.0, 85.0),
}  # eV, D, bohr3: about a tenth, half and nine tenths of QM9, and a dipole that few have
BASIS, FUNCTIONAL = "6-31g(2df,p)", "b3lyp"
FIELD = 0.002  # atomic units
DEBYE = 0.393430307  # atomic units
CONVERGED = 1e-6  # hartree; the gap has then settled to a thousandth of an eV


def computed(sample: Sample, wanted: str = "") -> dict[str, float] | None:
    """Gap (eV), dipole (D) and, where wanted, polarizability (bohr3); None if it fails."""
    from pyscf import dft, gto

    atoms = list(zip(sample.atomic_numbers.tolist(), sample.positions.tolist(), strict=True))
    try:
        molecule = gto.M(atom=atoms, basis=BASIS, verbose=0)
        field_free = dft.RKS(molecule, xc=FUNCTIONAL).density_fit()
        field_free.grids.level, field_free.conv_tol = 1, CONVERGED
        field_free.kernel()
    except (RuntimeError, ValueError, np.linalg.LinAlgError):  # an odd number of electrons, ...
        return None
    if not field_free.converged:
        return None
    filled = field_free.mo_occ > 0
    energies = field_free.mo_energy
    dipole = field_free.dip_moment(verbose=0)
    found = {
        "homo_lumo_gap": float(energies[~filled].min() - energies[filled].max()) * Hartree,
        "dipole_moment": float(np.linalg.norm(dipole)),
    }
    if wanted == "polarizability":
        with molecule.with_common_orig((0.0, 0.0, 0.0)):
            operators = molecule.intor_symmetric("int1e_r", comp=3)
        core, density = field_free.get_hcore(), field_free.make_rdm1()
        diagonal = []
        for axis in range(3):
            shifted = core + FIELD * operators[axis]
            field_free.get_hcore = lambda *_, shifted=shifted: shifted
            field_free.kernel(dm0=density)
            moved = field_free.dip_moment(verbose=0)[axis] - dipole[axis]
            diagonal.append(abs(float(moved)) * DEBYE / FIELD)
        found["polarizability"] = float(np.mean(diagonal))
    return found


class Known:
    """QM9's own molecules and values."""

    def __init__(self, path: Path) -> None:
        self.data = PreparedData.load(path)
        self.ends = self.data.num_atoms.long().cumsum(0).tolist()

    def molecule(self, row: int) -> Sample:
        """One of its geometries."""
        data, end = self.data, self.ends[row]
        assert data.coords is not None
        part = slice(end - int(data.num_atoms[row]), end)
        numbers = data.atomic_numbers[part].long().numpy()
        return Sample("molecule", numbers, data.coords[part].double().numpy())

    def check(self, num: int) -> dict[str, Any]:
        """How far the calculation is from QM9's values, on test molecules spread over it."""
        rows = (self.data.split == SPLITS.index("test")).nonzero().flatten()
        chosen = rows[torch.linspace(0, len(rows) - 1, num + 2).long()[1:-1]].tolist()
        errors: dict[str, list[float]] = {name: [] for name in TARGETS}
        for row in chosen:
            found = computed(self.molecule(row), "polarizability")
            if found is None:
                raise SystemExit(f"the calculation fails for molecule {row} of QM9")
            for name, value in found.items():
                errors[name].append(abs(value - float(self.data.labels[name][row])))
        return {"molecules": num} | {f"largest_error_{n}": max(e) for n, e in errors.items()}

    def limits(self, name: str, target: float) -> dict[str, float]:
        """Mean distance to a target of training molecules drawn at random, and of the nearest."""
        values = self.data.labels[name][self.data.split == 0]
        distances = (values[~values.isnan()] - target).abs()
        nearest = distances.sort().values[: len(distances) // 100]
        return {
            "qm9_at_random": float(distances.mean()),
            "qm9_drawn_at_the_target": float(nearest.mean()),
        }


def errors_of(rows: list[dict[str, float] | None], name: str, target: float) -> dict[str, Any]:
    """Distances of computed properties to a target."""
    values: NDArray[np.float64] = np.array([row[name] for row in rows if row is not None])
    return {
        "computed": f"{len(values)}/{len(rows)}",
        "mean_absolute_error": float(np.abs(values - target).mean()),
        "values": [round(float(value), 2) for value in values],
    }


def asked_target(text: str) -> tuple[str, float]:
    """`NAME=VALUE`.

    Raises:
        ArgumentTypeError: no property that is computed here, or no number.
    """
    name, _, value = text.partition("=")
    try:
        if name in TARGETS:
            return name, float(value)
    except ValueError:
        pass
    known = ", ".join(TARGETS)
    raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER with one of {known}")


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared QM9")
    parser.add_argument(
        "--target", nargs="+", type=asked_target, help="such as homo_lumo_gap=5; default: all",
        default=[(name, target) for name, targets in TARGETS.items() for target in targets],
    )  # fmt: skip
    parser.add_argument("--num", type=int, default=8, help="molecules of each target")
    parser.add_argument("--check", type=int, default=3, help="molecules of QM9 computed first")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--checkpoint")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    start = time.perf_counter()
    recipe: dict[str, Any] = {
        "kind": "molecule", "seed": args.seed, "precision": args.precision,
        "checkpoint": args.checkpoint,
    }  # fmt: skip
    known, generator = Known(args.data), ADiTGenerator(**recipe)
    results: dict[str, Any] = {
        **described(generator, args.num),
        "level": f"{FUNCTIONAL}/{BASIS}, density fitting, grid level 1",
    }
    if args.check:
        results["check"] = known.check(args.check)
        print(results["check"], flush=True)
    dearest = "polarizability" if "polarizability" in dict(args.target) else ""
    untold = [computed(sample, dearest) for sample in generator.samples(args.num)]
    for name, target in args.target:
        rows: dict[str, Any] = known.limits(name, target)
        rows["untold"] = errors_of(untold, name, target)
        for scale in args.scales:
            samples = ADiTGenerator(
                conditions={name: target}, condition_guidance={name: scale}, **recipe
            ).samples(args.num)
            found = [computed(sample, name) for sample in samples]
            rows[f"guidance {scale:g}"] = errors_of(found, name, target)
        results.setdefault(name, {})[f"{target:g}"] = rows
        results["minutes"] = round((time.perf_counter() - start) / 60, 1)
        write_json(results, args.json)  # after each target: the next takes as long
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
