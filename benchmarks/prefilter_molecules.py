"""Raw molecules relaxed by GFN2-xTB alone, and by `mace-adit:sevennet` first.

    python benchmarks/prefilter_molecules.py --num 100 \\
        --json benchmarks/results/prefilter_molecules.json

Strictly valid samples of the release, as drawn, go down to 0.05 eV/angstrom by GFN2-xTB (`adit env
create tblite`), within 200 steps; the same after `mace-adit:sevennet`, the small network that has
learned from GFN2-xTB, has gone down first, within 50. Both ways in one process with one thread. How
far the network errs is measured where its own way ends: against GFN2-xTB's energy there, relative
to that of the first geometry.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from relaxed_rows import write_json

from adit_plugins import ADiTGenerator
from adit_plugins.relax.limits import FMAX, PREFILTER_STEPS
from adit_plugins.relax.results import RelaxResult, displacement, outcomes
from adit_plugins.relax.run import Relaxer, load_relaxer, relax
from adit_plugins.validity.molecules import examine

STEPS = 200


def raw_molecules(num: int, seed: int) -> tuple[str, list[Atoms]]:
    """The weights, and their first strictly valid molecules."""
    generator = ADiTGenerator(kind="molecule", seed=seed)
    found: list[Atoms] = []
    for sample in generator.stream(2 * num):
        atoms = sample.to_ase()
        if examine(atoms)[0].strict_valid:
            found.append(atoms)
    found = found[:num]
    return generator.model.hash, found


def timed(
    relaxer: Relaxer, molecules: Sequence[Atoms], steps: int
) -> tuple[list[RelaxResult], dict[str, Any]]:
    """Relax all of them; tblite works in a process of its own, so the seconds are the clock's."""
    begun = time.perf_counter()
    results = relax(molecules, lambda: relaxer, FMAX, steps, workers=0)
    seconds = time.perf_counter() - begun
    return results, {
        "seconds": round(seconds, 1),
        "mean_steps": round(float(np.mean([each.num_steps for each in results])), 1),
        "ends": outcomes(results),
    }


def energies(relaxer: Relaxer, molecules: Sequence[Atoms]) -> np.ndarray:
    """Energies as they are, eV; NaN where there is none."""
    results = relax(molecules, lambda: relaxer, FMAX, 0, workers=0)
    return np.array([_energy(each) for each in results])


def _energy(result: RelaxResult) -> float:
    return np.nan if result.energy is None else result.energy


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", default="sevennet", help="`mace-adit:WEIGHTS`")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    weights, raw = raw_molecules(args.num, args.seed)
    xtb = load_relaxer("tblite:gfn2")
    small = load_relaxer(f"mace-adit:{args.weights}")
    alone, alone_row = timed(xtb, raw, STEPS)
    first, first_row = timed(small, raw, PREFILTER_STEPS)
    after, after_row = timed(xtb, [each.atoms for each in first], STEPS)
    both = [
        i for i in range(len(raw)) if not (alone[i].failed or first[i].failed or after[i].failed)
    ]
    moved = [displacement(first[i].atoms, alone[i].atoms) for i in both]
    lower = np.array([_energy(alone[i]) - _energy(after[i]) for i in both])
    ends = [first[i].atoms for i in both]
    starts = [raw[i] for i in both]
    gained = energies(xtb, ends) - energies(xtb, starts)
    said = energies(small, ends) - energies(small, starts)
    sizes = np.array([len(each) for each in ends])
    results = {
        "checkpoint": weights,
        "molecules": len(raw),
        "seed": args.seed,
        "hardware": f"{platform.machine()} CPU, one thread",
        "xtb_alone": alone_row,
        "mace_adit": first_row,
        "xtb_after_mace_adit": after_row,
        "compared": len(both),
        "median_rmsd_of_mace_adit_to_xtb_angstrom": float(np.median(moved)),
        "same_minimum_within_0.05_eV": int((np.abs(lower) < 0.05).sum()),
        "lower_after_mace_adit": int((lower > 0.05).sum()),
        "higher_after_mace_adit": int((lower < -0.05).sum()),
        "mean_error_of_the_gain_meV_atom": float(1000 * np.abs((said - gained) / sizes).mean()),
        "mean_gain_meV_atom": float(-1000 * (gained / sizes).mean()),
    }
    write_json(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
