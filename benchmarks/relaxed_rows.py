"""What the energy benchmarks share: rows of a table of crystals, and relaxed energies of many.

Relaxing hundreds of crystals takes hours on a CPU, so each result goes into a log at once and a
second run with the same log goes on where the first one stopped.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from json_output import write_json as write_json

from adit_plugins import Sample
from adit_plugins.registry import load
from adit_plugins.relax.results import RelaxResult
from adit_plugins.relax.run import relax
from adit_plugins.structures.reading import read_structures

CELL = ["a", "b", "c", "alpha", "beta", "gamma"]


def row_atoms(row: Any) -> Atoms:
    """Return the crystal of a row: atomic_numbers, frac_coords, a ... gamma."""
    return Atoms(
        numbers=row.atomic_numbers,
        scaled_positions=np.asarray(row.frac_coords).reshape(-1, 3),
        cell=[getattr(row, name) for name in CELL],
        pbc=True,
    )


def relaxed(
    structures: Mapping[str, Atoms],
    log: Path,
    relaxer: str,
    fmax: float,
    max_steps: int,
    workers: int,
) -> dict[str, dict[str, Any]]:
    """Return a record for each structure, relaxing those that the log does not hold yet.

    Args:
        structures: by id.
        log: JSON lines; made or continued.
        relaxer: a name for `adit_plugins.relax.relax`.
        fmax: eV/angstrom.
        max_steps: 0 for the energy as given.
        workers: as for `relax`.
    """
    settings = {"relaxer": relaxer, "fmax": fmax, "max_steps": max_steps}
    done: dict[str, dict[str, Any]] = {}
    if log.exists():
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        done = {r["id"]: r for r in lines if r["settings"] == settings}
    names = [name for name in structures if name not in done]
    start = time.perf_counter()
    with log.open("a") as file:

        def keep(index: int, result: RelaxResult) -> None:
            record = _record(names[index], result) | {"settings": settings}
            done[names[index]] = record
            file.write(json.dumps(record) + "\n")
            file.flush()
            if not len(done) % 50:
                seconds = time.perf_counter() - start
                print(f"{len(done)}/{len(structures)} {seconds:.0f} s", file=sys.stderr, flush=True)

        atoms = [structures[name] for name in names]
        relax(atoms, relaxer, fmax, max_steps, workers=workers, on_result=keep)
    return {name: done[name] for name in structures}


def _record(name: str, result: RelaxResult) -> dict[str, Any]:
    keep = (
        "reason",
        "num_steps",
        "energy_per_atom",
        "max_force",
        "potential",
        "seconds",
        "convention",
    )
    formula = result.atoms.get_chemical_formula()
    return {"id": name, "formula": formula} | {key: getattr(result, key) for key in keep}


def errors(found: pd.Series, expected: pd.Series) -> dict[str, float | int]:
    """Return number, MAE, bias, root mean square and median absolute error, meV/atom."""
    difference = 1000 * (found - expected).dropna()
    return {
        "number": len(difference),
        "mae_meV": round(float(difference.abs().mean()), 1),
        "bias_meV": round(float(difference.mean()), 1),
        "rmse_meV": round(float(np.sqrt((difference**2).mean())), 1),
        "median_absolute_meV": round(float(difference.abs().median()), 1),
    }


def read_samples(path: Path, num: int) -> dict[str, Atoms]:
    """Return the first samples of an .npz of a generator, or of any structure file, by number.

    The arrays are those of DiffCSP and its kin: num_atoms, atomic_numbers and frac_coords one after
    the other, lengths (angstrom) and angles (degrees) a crystal.
    """
    if path.suffix != ".npz":
        return {str(i): atoms for i, atoms in enumerate(read_structures(path)[:num])}
    data = {name: np.asarray(value) for name, value in np.load(path).items()}
    sizes = data["num_atoms"].reshape(-1)
    ends = np.cumsum(sizes)
    cells = np.hstack([data["lengths"].reshape(-1, 3), data["angles"].reshape(-1, 3)])
    return {
        f"sample/{i}": Atoms(
            numbers=data["atomic_numbers"].reshape(-1)[ends[i] - sizes[i] : ends[i]],
            scaled_positions=data["frac_coords"].reshape(-1, 3)[ends[i] - sizes[i] : ends[i]],
            cell=cells[i],
            pbc=True,
        )
        for i in range(min(num, len(sizes)))
    }


def chgnet_energies(samples: Sequence[Sample]) -> list[float]:
    """eV/atom of crystals as they are; NaN where CHGNet takes them not."""
    calculator = load("adit.relaxers", "chgnet")().calculator
    found = []
    for sample in samples:
        atoms = sample.to_ase()
        atoms.calc = calculator
        try:
            found.append(float(atoms.get_potential_energy()) / len(atoms))
        except Exception:  # noqa: BLE001 - isolated atoms
            found.append(math.nan)
    return found
