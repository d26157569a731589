"""Formation energies of held-out crystals against the Materials Project's.

1. The `test` rows of a table of crystals with a potential (CHGNet by default) at their DFT
   geometry, or relaxed with --max-steps: by the tabulated elements (raw), and with the corrections
   of the potential's own elements, which were fitted on other formulas.
2. Raw MACE-MP energies of a second table (material_id, mace_energy) with the Materials Project's
   corrections added: this proves the correction code. The same without them stands beside it.

    python benchmarks/formation_energies.py crystals.parquet --energies energies.parquet \
        --log formation.jsonl --json benchmarks/results/formation_energies.json
    python benchmarks/formation_energies.py mp20_test.parquet \
        --relaxer sevennet:l3i5 mace-adit:sevennet --log mp20.jsonl \
        --json benchmarks/results/formation_energies_mp20.json
    python benchmarks/formation_energies.py mp20_test.parquet --held-out \
        --relaxer mace-adit mace-adit:sevennet --log mp20.jsonl \
        --json benchmarks/results/formation_energies_held_out.json
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pandas as pd
from ase import Atoms
from pymatgen.core import Composition
from relaxed_rows import errors, relaxed, row_atoms, write_json

from adit_integrations.mace_adit.label_set import split_of
from adit_plugins.hull.energies import ConventionError, corrected_energy
from adit_plugins.hull.references import references_of
from adit_plugins.hull.table import (
    UnknownElementError,
    atomic_fractions,
    formation_energy_per_atom,
)
from adit_plugins.relax.results import MP2020, MP_RAW

SEED = 0


def formation(formula: str, energy_per_atom: float | None) -> float:
    """Return the formation energy (eV/atom), NaN where an element has no reference."""
    if energy_per_atom is None:
        return math.nan
    try:
        return formation_energy_per_atom(formula, energy_per_atom)
    except UnknownElementError:
        return math.nan


def reduced(formula: str) -> str:
    """The formula as labels are split by it."""
    return str(Composition(formula).reduced_formula)


def on_the_hulls_scale(atoms: Atoms, record: dict[str, Any]) -> float | None:
    """Return the energy an atom with the Materials Project's corrections, eV."""
    if record["energy_per_atom"] is None:
        return None
    energy = record["energy_per_atom"] * len(atoms)
    try:
        return corrected_energy(atoms, energy, record.get("convention", MP2020)) / len(atoms)
    except ConventionError:
        return None


def by_potential(rows: pd.DataFrame, relaxer: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the errors of a potential, all and by data set."""
    structures = {row.material_id: row_atoms(row) for row in rows.itertuples()}
    records = relaxed(structures, args.log, relaxer, 0.05, args.max_steps, args.workers)
    energies = [on_the_hulls_scale(structures[name], records[name]) for name in rows.material_id]
    pairs = zip(rows.formula, energies, strict=True)
    found = pd.Series([formation(*pair) for pair in pairs], index=rows.index)
    potential = next(iter(records.values()))["potential"]
    references = references_of(potential)
    shifts = [0.0 if references is None else references.shift(atomic_fractions(formula))
              for formula in rows.formula]  # fmt: skip
    own = found - pd.Series(shifts, index=rows.index)
    expected = rows.formation_energy_per_atom
    return {
        "potential": potential,
        "references": "" if references is None else references.label,
        "max_steps": args.max_steps,
        "rows": len(rows),
        "no_energy": sum(energy is None for energy in energies),
        "no_reference_for_an_element": int(found.isna().sum()),
        "raw": _errors(found, expected, rows),
        "corrected": _errors(own, expected, rows),
    }


def _errors(found: pd.Series, expected: pd.Series, rows: pd.DataFrame) -> dict[str, Any]:
    near = rows.energy_above_hull < 0.1
    groups = [
        ("all", near | True),
        ("below 0.1 eV/atom above the hull", near),
        ("from 0.1 eV/atom above the hull", ~near),
        *_groups(rows),
    ]
    return {name: errors(found[part], expected[part]) for name, part in groups}


def _groups(rows: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    return [(name, rows.dataset == name) for name in sorted(rows.dataset.unique())]


def by_mace(crystals: pd.DataFrame, table: pd.DataFrame, num: int) -> dict[str, Any]:
    """Return the errors of corrected and of raw MACE-MP energies."""
    columns = ["material_id", "mace_energy", "num_atoms"]
    both = crystals.merge(table[columns], on="material_id", suffixes=("", "_of_energy"))
    both = both[both.mace_energy.notna()]
    same_cell = both.num_atoms == both.num_atoms_of_energy
    other_cell, both = int((~same_cell).sum()), both[same_cell]
    chosen = both.sample(min(num, len(both)), random_state=SEED)
    corrected, raw, refused = [], [], 0
    for row in chosen.itertuples():
        atoms = row_atoms(row)
        try:
            energy = corrected_energy(atoms, row.mace_energy, MP_RAW)
        except ConventionError:
            refused += 1
            energy = math.nan
        corrected.append(formation(row.formula, energy / len(atoms)))
        raw.append(formation(row.formula, row.mace_energy / len(atoms)))
    expected = chosen.formation_energy_per_atom
    return {
        "in_both_tables": len(both),
        "left_out_as_the_energy_is_of_another_cell": other_cell,
        "chosen": len(chosen),
        "refused_by_the_correction": refused,
        "corrected": errors(pd.Series(corrected, index=chosen.index), expected),
        "raw": errors(pd.Series(raw, index=chosen.index), expected),
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crystals", type=Path)
    parser.add_argument("--energies", type=Path)
    parser.add_argument("--log", type=Path, required=True, help="JSON lines; made or continued")
    parser.add_argument("--relaxer", nargs="+", default=["chgnet"])
    parser.add_argument(
        "--held-out", action="store_true", help="only formulas that no mace-adit has learned from"
    )
    parser.add_argument("--max-steps", type=int, default=0, help="0: at the geometry given")
    parser.add_argument("--num-mace", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    crystals = pd.read_parquet(args.crystals)
    rows = crystals[crystals.split == "test"]
    if args.held_out:
        rows = rows[[split_of(reduced(formula)) != "train" for formula in rows.formula]]
    found = {name: by_potential(rows, name, args) for name in args.relaxer}
    result: dict[str, Any] = {"test rows": found if len(found) > 1 else found[args.relaxer[0]]}
    if args.energies is not None:
        energies = pd.read_parquet(args.energies)
        result["MACE-MP energies"] = by_mace(crystals, energies, args.num_mace)
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
