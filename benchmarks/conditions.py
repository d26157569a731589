"""Whether crystals have the property that the network was told, beside those that it was told none.

    python benchmarks/conditions.py --data data/crystals.safetensors --num 200 --relax 40 \\
        --json benchmarks/results/conditions.json

For every target of a property `--num` raw samples (nothing filtered), each with the elements drawn
plainly and led by the condition (`condition_guidance`). Space groups are moyopy's, at each of
TOLERANCES as the crystal is, and of the first `--relax` after relaxation; densities are
the crystal's own; energies above hull those of `--relaxer`; band gaps those of a regressor that is
trained here on the gaps of the training split (elements and density), whose error on the test split
stands beside (`gap_regressor.py`). The limits in the same run: what crystals of the network that is
told nothing have, and the training split's own crystals, drawn at random.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from gap_regressor import GapRegressor, train_gaps
from numpy.typing import NDArray
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from sample_quality import described, real_samples, write_json

from adit_model.data import PreparedData
from adit_plugins import ADiTGenerator, Sample
from adit_plugins.hull.energies import place
from adit_plugins.hull.table import Hull
from adit_plugins.metrics.crystals import judge_crystal
from adit_plugins.relax.limits import PREDICTION_FMAX, PREDICTION_STEPS
from adit_plugins.relax.run import relax
from adit_plugins.structures.symmetry import SYMPREC, symmetry_dataset

# A cubic, an orthorhombic and a monoclinic group, common to rare; a tenth, half and nine tenths
# (about) of the training set's densities; metals, semiconductors and insulators.
TARGETS: dict[str, tuple[float, ...]] = {
    "space_group": (225, 62, 14),
    "density": (3.0, 6.0, 12.0),
    "energy_above_hull": (0.0, 0.1),
    "band_gap": (0.0, 2.0, 5.0),
}
TOLERANCES = (SYMPREC, 0.3)  # angstrom; raw atoms miss their places by a tenth
DISTURBED_ATOMS, DISTURBED_CELL = 0.05, 0.005  # angstrom a coordinate, strain
METASTABLE = 0.1  # eV/atom
METAL = 0.1  # eV, predicted gaps below

Values = NDArray[np.float64]


def crystal(sample: Sample) -> Structure:
    """A crystal as pymatgen has it."""
    structure = sample.to_pymatgen()
    assert isinstance(structure, Structure)
    return structure


def space_groups(crystals: Sequence[Structure], tolerance: float) -> Values:
    """International numbers, 0 where there is no symmetry."""
    return np.array([getattr(symmetry_dataset(c, tolerance), "number", 0) for c in crystals])


def share(hits: NDArray[np.bool_] | Sequence[bool]) -> str:
    """Hits of all."""
    return f"{int(np.sum(hits))}/{len(hits)}"


class Samples:
    """Samples of one request, and what is measured of them once for all comparisons."""

    def __init__(
        self, samples: list[Sample], gaps: GapRegressor, num_relaxed: int, relaxer: str
    ) -> None:
        self.crystals = [crystal(sample) for sample in samples]
        self.judged = [judge_crystal(sample) for sample in samples]
        self.densities = np.array([float(each.density) for each in self.crystals])
        self.groups = {t: space_groups(self.crystals, t) for t in TOLERANCES}
        self.gaps = gaps.predict(self.crystals)
        self.relaxed_groups: dict[float, Values] = {}
        self.heights: Values = np.zeros(0)
        if num_relaxed:
            hull = Hull.load()
            chosen = [sample.to_ase() for sample in samples[:num_relaxed]]
            results = relax(chosen, relaxer, PREDICTION_FMAX, PREDICTION_STEPS, workers=0)
            there = [each for each in results if not each.failed]
            relaxed = [AseAtomsAdaptor.get_structure(each.atoms) for each in there]
            self.relaxed_groups = {t: space_groups(relaxed, t) for t in TOLERANCES}
            # Those without an elemental reference (ytterbium) have no place on the hull.
            placed = [each for each in there if set(each.atoms.symbols) <= set(hull.references)]
            self.heights = np.array([place(each, hull)[1].energy_above_hull for each in placed])

    def general(self) -> dict[str, Any]:
        """What no target is needed for."""
        formulas = {each.composition.reduced_formula for each in self.crystals}
        found: dict[str, Any] = {
            "samples": len(self.crystals),
            "structurally_valid": share([bool(row["struct_valid"]) for row in self.judged]),
            "composition_valid": share([bool(row["comp_valid"]) for row in self.judged]),
            "formulas": len(formulas),
        }
        if len(self.heights):
            found |= {
                "on_the_hull": len(self.heights),
                "median_energy_above_hull": float(np.median(self.heights)),
                f"below_{METASTABLE:g}_eV": share(self.heights <= METASTABLE),
            }
        return found

    def against(self, name: str, target: float) -> dict[str, Any]:
        """How near these are to a target, whatever they were told."""
        if name == "space_group":
            found: dict[str, Any] = {
                f"share_at_{t:g}": share(groups == target) for t, groups in self.groups.items()
            }
            return found | {
                f"relaxed_share_at_{t:g}": share(groups == target)
                for t, groups in self.relaxed_groups.items()
            }
        if name == "energy_above_hull":
            return {}  # in what is general
        values = self.densities if name == "density" else self.gaps
        found = {
            "mean_absolute_error": float(np.abs(values - target).mean()),
            "median": float(np.median(values)),
        }
        return found | ({"metals": share(values < METAL)} if name == "band_gap" else {})


def measured(
    make: Callable[..., Samples], names: Sequence[str], scales: Sequence[float], num_relaxed: int
) -> Iterator[dict[str, Any]]:
    """Every target of the named properties, told, told harder and not told; one by one."""
    relaxed_for = {"space_group", "energy_above_hull"}
    needed = num_relaxed if relaxed_for & set(names) else 0
    untold = make(num_relaxed=needed)
    results: dict[str, Any] = {"untold": untold.general()}
    print("untold", results["untold"], flush=True)
    for name in names:
        results[name] = {}
        for target in TARGETS[name]:
            rows: dict[str, Any] = {"untold": untold.against(name, target)}
            for scale in scales:
                samples = make(
                    conditions={name: target},
                    condition_guidance={name: scale},
                    num_relaxed=num_relaxed if name in relaxed_for else 0,
                )
                rows[f"guidance {scale:g}"] = samples.against(name, target) | samples.general()
                print(name, target, scale, rows[f"guidance {scale:g}"], flush=True)
            results[name][f"{target:g}"] = rows
        yield results


def of_training_set(path: Path, num: int, seed: int) -> dict[str, Any]:
    """The same distances for crystals of the training split: drawn at random, none is at a target.

    Space groups, energies and gaps are the file's labels; of gaps and energies those that it knows.
    """
    data = PreparedData.load(path)
    drawn = [crystal(sample) for sample in real_samples(path, num, seed)[1]]
    densities = np.array([float(each.density) for each in drawn])
    found: dict[str, Any] = {"density": {}, "space_group": {}, "band_gap": {}}
    for target in TARGETS["density"]:
        found["density"][f"{target:g}"] = float(np.abs(densities - target).mean())
    training = data.split == 0
    for name in ("space_group", "band_gap"):
        values = data.labels[name][training]
        values = values[~values.isnan()]
        for target in TARGETS[name]:
            distance = (values - target).abs()
            number = (distance == 0).float() if name == "space_group" else distance
            found[name][f"{target:g}"] = float(number.mean())
    return {"crystals_drawn": len(drawn), "share_or_mean_absolute_error": found}


def kept_by_relaxation(path: Path, num: int, relaxer: str, seed: int) -> dict[str, str]:
    """Training crystals of each group, disturbed like raw samples and relaxed: how many keep it."""
    data, random = PreparedData.load(path), np.random.default_rng(seed)
    coords, cells = data.coords, data.cell
    if coords is None or cells is None:
        raise SystemExit(f"{path} holds no crystals with geometry")
    training, groups = data.split == 0, data.labels["space_group"]
    ends = data.num_atoms.long().cumsum(0).tolist()
    kept = {}
    for target in TARGETS["space_group"]:
        known = (training & (groups == target)).nonzero().flatten().numpy()
        disturbed = []
        for row in random.choice(known, min(num, len(known)), replace=False).tolist():
            part = slice(ends[row] - int(data.num_atoms[row]), ends[row])
            atoms = Atoms(
                data.atomic_numbers[part].numpy(), scaled_positions=coords[part].numpy(),
                cell=cells[row].tolist(), pbc=True,
            )  # fmt: skip
            strain = np.eye(3) + DISTURBED_CELL * random.standard_normal((3, 3))
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            atoms.positions += DISTURBED_ATOMS * random.standard_normal((len(atoms), 3))
            disturbed.append(atoms)
        found = relax(disturbed, relaxer, PREDICTION_FMAX, PREDICTION_STEPS, workers=0)
        there = [AseAtomsAdaptor.get_structure(each.atoms) for each in found if not each.failed]
        kept[f"{target:g}"] = share(space_groups(there, SYMPREC) == target)
    return kept


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared crystals")
    parser.add_argument("--property", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--num", type=int, default=200, help="samples of each target")
    parser.add_argument("--relax", type=int, default=40, help="of these are relaxed; 0 for none")
    parser.add_argument("--relaxer", default="mace-adit")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--checkpoint")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    start = time.perf_counter()
    gaps = train_gaps(args.data)
    recipe = {"seed": args.seed, "precision": args.precision, "checkpoint": args.checkpoint}

    def make(num_relaxed: int, **request: Any) -> Samples:
        samples = ADiTGenerator(**recipe, **request).samples(args.num)
        return Samples(samples, gaps, num_relaxed, args.relaxer)

    generator = ADiTGenerator(**recipe)
    results: dict[str, Any] = {
        **described(generator, args.num),
        "relaxer": f"{args.relaxer}, {PREDICTION_FMAX:g} eV/angstrom, {PREDICTION_STEPS} steps",
        "gap_regressor": gaps.report,
        "training_set": of_training_set(args.data, 1000, args.seed),
    }
    if args.relax:
        kept = kept_by_relaxation(args.data, args.relax, args.relaxer, args.seed)
        results["training_set"]["space_group_kept_when_disturbed_and_relaxed"] = kept
    for found in measured(make, args.property, args.scales, args.relax):
        results |= found | {"minutes": round((time.perf_counter() - start) / 60, 1)}
        write_json(results, args.json)  # after each property: the next takes as long
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
