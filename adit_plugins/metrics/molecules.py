"""Metrics of molecules by the protocols in use, each under its own name, nothing dropped.

Three validities that must not be mixed: `valid_openbabel` (the published ADiT figures),
`valid_edm` (most papers on QM9) and `valid_strict` (what a chemist would accept), each with its
own uniqueness and novelty; every PoseBusters check by name; strain energy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins.matching.fingerprints import Fingerprints, is_known
from adit_plugins.metrics.edm import edm_bonds, edm_mol
from adit_plugins.metrics.molecule_rates import RULES, MoleculeMetrics, summarise
from adit_plugins.processes import Each, End, stream
from adit_plugins.registry import MissingExtraError
from adit_plugins.structures.bonds import largest_fragment_smiles, openbabel_bonds
from adit_plugins.validity.molecules import TIME_LIMIT, examine, input_problem, prepare_worker
from adit_plugins.validity.posebusters_checks import (
    ENERGY_CHECK,
    bust_energy,
    bust_geometry,
    check_names,
    strain_energy,
)

if TYPE_CHECKING:
    from ase import Atoms
    from rdkit.Chem import Mol


_UNREADABLE = "unreadable"
_NOT_REACHED = "not reached"


def evaluate_molecules(
    molecules: Sequence[Atoms | None],
    reference: Fingerprints | str | PathLike[str] = "molecule",
    fast: bool = False,
    workers: int | None = None,
    time_limit: float = TIME_LIMIT,
    progress: Callable[[int, int], None] | None = None,
    reasons: Sequence[str | None] | None = None,
) -> MoleculeMetrics:
    """Score molecules from any source.

    PoseBusters and the strain energy take the whole molecule as the published figures do, with
    OpenBabel's bonds, where they are valid; without OpenBabel those of RDKit. A check that cannot
    be done, or not within the time limit, counts as failed; how many is in the notes.

    Args:
        molecules: None is an entry that could not be read; it counts as invalid.
        reference: known molecules for novelty: `"molecule"` for the shipped QM9 fingerprints, a
            file of fingerprints, or a text file with a SMILES in the first column of each line.
        fast: leave out PoseBusters' energy check, 50 conformers a molecule.
        workers: processes; None for one a core, 0 for none (then there is no time limit).
        time_limit: seconds a molecule.
        progress: called with the number done and the total.
        reasons: why the None entries could not be read, one an entry.

    Raises:
        ValueError: reference, workers, time_limit or the length of reasons is wrong.
    """
    if reasons is not None and len(reasons) != len(molecules):
        raise ValueError(f"{len(reasons)} reasons for {len(molecules)} molecules")
    known = _load_reference(reference)
    babel_missing = _missing_openbabel()
    rows: list[dict[str, Any]] = [_blank_row() for _ in molecules]
    for i, row in enumerate(rows):
        if molecules[i] is None:
            row["reason"] = (reasons[i] if reasons is not None else None) or _UNREADABLE
    readable = [i for i, each in enumerate(molecules) if each is not None]
    done = len(rows) - len(readable)
    checks = [name for name in check_names() if not (fast and name == ENERGY_CHECK)]
    work = Each(partial(_parts, with_openbabel=not babel_missing, fast=fast))
    items = [each for each in molecules if each is not None]
    for place, part in stream(work, items, time_limit, workers, prepare_worker):
        row = rows[readable[place]]
        if not isinstance(part, End):
            row.update(part)
            continue
        _finish_row(row, part.problem, checks)
        done += 1
        if progress is not None:
            progress(done, len(rows))
    for rule in RULES:
        _mark_unique_and_novel(rows, rule, known)
    return summarise(rows, babel_missing, fast, None if workers == 0 else time_limit)


def _blank_row() -> dict[str, Any]:
    """An invalid molecule; each part of the work fills in what it finds."""
    row: dict[str, Any] = {"num_atoms": 0, "reason": _NOT_REACHED, "problem": ""}
    row |= {"connected": False}
    for rule in RULES:
        row |= {f"valid_{rule}": False, f"smiles_{rule}": None}
        row |= {f"unique_{rule}": None, f"novel_{rule}": None}
    row |= {"reason_openbabel": "", "reason_edm": "", "stable_edm": False, "num_stable_atoms": 0}
    row |= {"posebusters": None, "not_done": []}
    return row | {"strain_energy": None, "energy_ratio": None}


def _parts(atoms: Atoms, with_openbabel: bool, fast: bool) -> Iterator[dict[str, Any]]:
    """Fill a row piece by piece, the quick and certain pieces first."""
    yield {"num_atoms": len(atoms), "reason": _NOT_REACHED}
    problem = input_problem(atoms)
    if problem:
        yield {"reason": problem}
        return
    yield _edm_part(atoms)
    report, mol = examine(atoms)
    yield {
        "valid_strict": report.strict_valid,
        "smiles_strict": report.smiles if report.strict_valid else None,
        "connected": report.connected,
        "reason": report.reason,
    }
    if with_openbabel:
        part, mol = _openbabel_part(atoms)
        yield part
    if mol is not None:
        yield from _posebusters_parts(mol, fast)


def _edm_part(atoms: Atoms) -> dict[str, Any]:
    bonds = edm_bonds(atoms.numbers, atoms.positions)
    part = {"stable_edm": bonds.stable, "num_stable_atoms": bonds.num_stable_atoms}
    try:
        smiles = largest_fragment_smiles(edm_mol(atoms.numbers, bonds))
    except ValueError as error:
        return part | {"reason_edm": str(error)}
    return part | {"valid_edm": True, "smiles_edm": smiles}


def _openbabel_part(atoms: Atoms) -> tuple[dict[str, Any], Mol | None]:
    try:
        mol = openbabel_bonds(list(atoms.symbols), atoms.positions)
        smiles = largest_fragment_smiles(mol)
    except ValueError as error:
        return {"reason_openbabel": str(error)}, None
    return {"valid_openbabel": True, "smiles_openbabel": smiles}, mol


def _posebusters_parts(mol: Mol, fast: bool) -> Iterator[dict[str, Any]]:
    yield {"posebusters": {}}  # begun: what is missing when the time is up counts as failed
    geometry = bust_geometry(mol)
    yield {
        "posebusters": geometry.verdicts,
        "not_done": geometry.not_done,
        "strain_energy": strain_energy(mol),
    }
    if not fast:
        energy = bust_energy(mol)
        yield {
            "posebusters": geometry.verdicts | energy.verdicts,
            "not_done": geometry.not_done + energy.not_done,
            "energy_ratio": energy.values.get("energy_ratio"),
        }


def _finish_row(row: dict[str, Any], problem: str, checks: Sequence[str]) -> None:
    """Write down what a molecule did not reach: its reason, and checks that count as failed."""
    row["problem"] = problem
    if row["reason"] == _NOT_REACHED:
        row["reason"] = problem
    if row["posebusters"] is not None:
        missing = [name for name in checks if name not in row["posebusters"]]
        row["not_done"] = [*row["not_done"], *missing]
        row["posebusters"] = {name: row["posebusters"].get(name, False) for name in checks}


def _mark_unique_and_novel(rows: list[dict[str, Any]], rule: str, known: Fingerprints) -> None:
    from adit_plugins.matching.matcher import duplicate_labels

    first_places = duplicate_labels([row[f"smiles_{rule}"] for row in rows])
    for row, first in zip(rows, first_places, strict=True):
        if row[f"valid_{rule}"]:
            row[f"unique_{rule}"] = first is None
            if first is None:
                row[f"novel_{rule}"] = not is_known(row[f"smiles_{rule}"], known)


def _load_reference(reference: Fingerprints | str | PathLike[str]) -> Fingerprints:
    if not isinstance(reference, Fingerprints):
        path = Path(reference)
        if path.is_file() and path.suffix.lower() in (".smi", ".smiles", ".txt", ".csv"):
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            cells = [line.replace(",", " ").split() for line in lines if line.strip()]
            smiles = [cell[0] for cell in cells if cell and cell[0].lower() != "smiles"]
            reference = Fingerprints.build(smiles)
        else:
            reference = Fingerprints.load(path if path.is_file() else str(reference))
    if reference.kind != "molecule":
        raise ValueError(f"The reference holds {reference.kind}s; novelty needs molecules.")
    return reference


def _missing_openbabel() -> str:
    """The install command, if OpenBabel is not there."""
    try:
        openbabel_bonds(["H", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]])
    except MissingExtraError as error:
        return str(error)
    return ""
