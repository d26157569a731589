"""Verdicts as rows of the store: columns to select by, data to keep, and the way back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from adit_plugins.campaign.duplicates import smiles_column
from adit_plugins.campaign.jobs import Killer
from adit_plugins.campaign.settings import DONE, PREFILTER, RELAX, Settings
from adit_plugins.campaign.sources import Arrival
from adit_plugins.campaign.store import Row
from adit_plugins.campaign.work import Placed, Prefiltered, Screened
from adit_plugins.metrics.stability import is_within
from adit_plugins.relax.results import RelaxResult, kind_of
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.samples import Sample
from adit_plugins.validity.molecules import MoleculeReport

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

# The columns that say how far a crystal came; a shard's and an uninterrupted run's are the same.
_COLUMNS = {"checkpoint": "checkpoint", "seed": "seed", "sample_index": "index"}
_CRYSTAL_CHECKS = ("structure_valid", "composition_valid")
_MOLECULE_CHECKS = ("rdkit_valid", "connected", "strict_valid", "posebusters")


def _new(entry: Arrival) -> Row:
    provenance = {} if entry.sample is None else dict(entry.sample.provenance)
    provenance.setdefault("id", entry.name)
    columns = {column: provenance.get(key) for column, key in _COLUMNS.items()}
    if "checkpoint_hash" in provenance:
        columns["checkpoint_hash"] = f"hash:{provenance['checkpoint_hash']}"
    columns |= {
        "number": entry.number,
        "sample_id": str(provenance["id"]),
        "kind": entry.kind,
        "origin": entry.origin or None,
        "stage": DONE,
    }
    atoms = Atoms() if entry.sample is None else entry.sample.to_ase()
    atoms.info.clear()  # the provenance goes into the data
    generated = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions,
        "cell": atoms.cell.array,
    }
    data = {KEY: provenance, "generated": generated}
    return Row(atoms, columns, data)


def name_of(entry: Arrival) -> str:
    """Return the id that the row of an entry gets."""
    return str(_new(entry).data[KEY]["id"])


def unreadable_row(entry: Arrival) -> Row:
    """A structure that cannot be read is invalid."""
    row = _new(entry)
    checks = _MOLECULE_CHECKS if entry.kind == "molecule" else _CRYSTAL_CHECKS
    row.columns |= dict.fromkeys(checks, False)
    row.columns["problem"] = entry.problem
    return row


def crystal_row(
    entry: Arrival, screened: Screened | Killer, duplicate_of: str | None, settings: Settings
) -> Row:
    """A screened crystal; it waits for relaxation if it is valid, unique and novel."""
    if isinstance(screened, Killer):
        row = unreadable_row(entry)
        row.columns |= {"quarantined": True, "problem": f"quarantined: {screened.reason}"}
        return row
    row = _new(entry)
    row.columns |= {
        "structure_valid": screened.structure_valid,
        "composition_valid": screened.composition_valid,
        "neutral_by": screened.neutral_by,
        "min_distance": screened.min_distance,
        "composition": screened.composition,
    }
    row.data["reduced"] = screened.reduced
    if screened.structure_valid:
        unique = duplicate_of is None
        row.columns |= {"unique": unique, "duplicate_of": duplicate_of}
        if unique:
            row.columns["novel"] = screened.novel
        if unique and screened.novel:
            row.columns["stage"] = settings.first_stage
    return row


def molecule_row(
    entry: Arrival, report: MoleculeReport, duplicate_of: str | None, novel: bool | None
) -> Row:
    """A checked molecule."""
    row = _new(entry)
    busters = report.posebusters
    row.columns |= {
        "rdkit_valid": report.rdkit_valid,
        "connected": report.connected,
        "strict_valid": report.strict_valid,
        "posebusters": bool(busters) and all((busters or {}).values()),
        "smiles": None if report.smiles is None else smiles_column(report.smiles),
        "problem": report.reason or None,
    }
    if report.smiles:
        row.columns |= {"unique": duplicate_of is None, "duplicate_of": duplicate_of}
        if duplicate_of is None:
            row.columns["novel"] = novel
    row.data["report"] = dataclasses.asdict(report)
    return row


_SCREENED = (
    *_COLUMNS, "checkpoint_hash", "number", "sample_id", "kind", "stage", "structure_valid",
    "composition_valid", "neutral_by", "min_distance", "composition", "unique", "rdkit_valid",
    "connected", "origin",
    "strict_valid", "posebusters", "smiles", "problem",
)  # fmt: skip


def as_duplicate(row: AtomsRow, duplicate_of: str) -> Row:
    """Return a row as it were had it been known for a duplicate before it was relaxed."""
    columns = {key: row[key] for key in _SCREENED if key in row}
    columns |= {"unique": False, "duplicate_of": duplicate_of, "stage": DONE}
    data = {key: row.data[key] for key in _SCREENED_DATA if key in row.data}
    return Row(_generated_atoms(row), columns, data)


def as_unique(row: AtomsRow, first_stage: str) -> Row:
    """Return the row of a former duplicate that is none after all; it may have to be relaxed."""
    from adit_plugins.matching.fingerprints import Fingerprints, is_known

    columns = {key: row[key] for key in _SCREENED if key in row} | {"unique": True}
    known = Fingerprints.load(row["kind"])
    if row["kind"] == "molecule":
        columns["novel"] = not is_known(row.data["report"]["smiles"], known)
    else:
        sample = generated_sample(row)
        columns["novel"] = sample is not None and not known.contains(sample.to_pymatgen())
        columns["stage"] = first_stage if columns["novel"] else DONE
    data = {key: row.data[key] for key in _SCREENED_DATA if key in row.data}
    return Row(_generated_atoms(row), columns, data)


_SCREENED_DATA = (KEY, "generated", "reduced", "report")


def _generated_atoms(row: AtomsRow) -> Atoms:
    sample = generated_sample(row)
    atoms = Atoms() if sample is None else sample.to_ase()
    atoms.info.clear()
    return atoms


def relaxed_row(
    stage: str, atoms: Atoms, answer: Placed | Prefiltered | Killer, settings: Settings
) -> Row:
    """What a row becomes after the pre-filter or the relaxation."""
    if isinstance(answer, Killer):
        names = [settings.prefilter, settings.relaxer] if stage == PREFILTER else [settings.relaxer]
        name = " and ".join(filter(None, names))  # one of them
        reason = f"quarantined: {answer.reason}"
        answer = Placed(RelaxResult.failure(atoms.copy(), reason, name))
        quarantined = True
    else:
        quarantined = False
    if stage == PREFILTER and isinstance(answer, Placed):
        answer = Prefiltered(answer)
    if isinstance(answer, Prefiltered):
        row = _prefiltered(atoms, answer, settings)
    else:
        row = _relaxed(answer)
    if quarantined:
        row.columns["quarantined"] = True
    return row


def _prefiltered(atoms: Atoms, answer: Prefiltered, settings: Settings) -> Row:
    """A structure that cannot be judged goes on: the pre-filter is there to save time."""
    energy = answer.energy_above_hull
    passed = energy is None or is_within(energy, settings.prefilter_limit)
    result, hull, look = answer.placed.result, answer.placed.hull, answer.look
    columns = {
        "prefiltered": passed,
        "prefilter_energy_above_hull": None if hull is None else hull.energy_above_hull,
        "stage": RELAX if passed else DONE,
    }
    if look is not None and look.hull is not None:
        columns["look_energy_above_hull"] = look.hull.energy_above_hull
    data = {"prefilter": result.as_record()}
    if look is not None:
        data["prefilter_look"] = look.result.as_record()
        if look.result.failed:  # the geometry is none for the relaxer; it gets the one before
            return Row(atoms.copy(), columns, data)
    return Row(result.atoms.copy() if passed else result.atoms, columns, data)


def _relaxed(answer: Placed) -> Row:
    result, hull = answer.result, answer.hull
    columns: dict[str, Any] = {
        "stage": DONE,
        "relaxed": not result.failed,
        "converged": result.converged,
        "outcome": kind_of(result.reason),
        "potential": result.potential,
        "num_steps": result.num_steps,
        "relax_seconds": result.seconds,
        "formation_energy_per_atom": answer.formation_energy_per_atom,
        "hull_problem": answer.hull_problem or None,
        "novelty": answer.novelty or None,
    }
    if hull is not None:
        columns |= {
            "energy_above_hull": hull.energy_above_hull,
            "raw_energy_above_hull": hull.raw_energy_above_hull,
            "metastable_probability": hull.metastable_probability,
            "hull_gap": "no competing phase is known" if hull.knows_nothing else None,
        }
    data = {
        "relaxation": result.as_record(),
        "hull": None if hull is None else dataclasses.asdict(hull),
    }
    return Row(result.atoms, columns, data)


def generated_sample(row: AtomsRow) -> Sample | None:
    """Return the structure as it was generated; None if it could not be read."""
    content, provenance = row.data["generated"], row.data[KEY]
    if not len(content["numbers"]):
        return None
    lattice = np.asarray(content["cell"]) if row["kind"] == "crystal" else None
    numbers = np.asarray(content["numbers"])
    return Sample(row["kind"], numbers, np.asarray(content["positions"]), lattice, dict(provenance))


def current_atoms(row: AtomsRow) -> Atoms:
    """Return the structure of a row, relaxed if it was, with its energy and provenance."""
    atoms: Atoms = row.toatoms()
    atoms.info = {KEY: dict(row.data[KEY])}
    return atoms
