"""Campaigns' folders as candidates: each structure with why it is no pick, or with all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins.campaign.files import is_results
from adit_plugins.campaign.records import current_atoms
from adit_plugins.campaign.settings import KNOWN_STRUCTURE, WAITING
from adit_plugins.campaign.store import Store, has_store
from adit_plugins.metrics.stability import is_within
from adit_plugins.outputs import json_text
from adit_plugins.prediction.files import RECORDS, STRUCTURES
from adit_plugins.prediction.store import read_search
from adit_plugins.structures.given import to_structure

if TYPE_CHECKING:
    from ase import Atoms

    from adit_plugins.matching.fingerprints import Fingerprints

MAX_HULL = 0.1  # eV/atom
STRAIN = "internal_energy"  # PoseBusters' check of the energy against relaxed conformers
TOO_HIGH = "lie above --max-hull"
# eV/atom. So far below all phases of the table an error of the potential, or a gap of the table, is
# likelier than a compound, and what is picked by the lowest energies would be the worst errors.
MIN_HULL = -0.2
TOO_LOW = f"lie below {MIN_HULL:g} eV/atom, which is not to be believed"


class NoCampaignError(ValueError):
    """A folder holds nothing to pick from."""


@dataclass(frozen=True)
class Candidate:
    """A structure of a campaign.

    Attributes:
        kind: `"crystal"` or `"molecule"`.
        name: its id.
        left_out: why it is no pick, in the words of a count: "3 crystals WHY"; empty for a pick.
        atoms: the relaxed crystal, or the molecule as it was made; None where it is left out.
        energy: eV/atom above the hull by `potential`; None for a molecule.
        potential: that relaxed it.
        smiles: of a molecule.
    """

    kind: str
    name: str
    left_out: str = ""
    atoms: Atoms | None = None
    energy: float | None = None
    potential: str = ""
    smiles: str | None = None

    @property
    def formula(self) -> str:
        """The reduced formula of a crystal, the formula of a molecule; empty without atoms."""
        if self.atoms is None:
            return ""
        if self.kind == "molecule":
            return str(self.atoms.symbols.formula.format("hill"))
        return str(to_structure(self.atoms).composition.reduced_formula)

    def without(self, reason: str) -> Candidate:
        """Return it as one that is left out."""
        return replace(self, left_out=reason, atoms=None)


@dataclass(frozen=True)
class Campaign:
    """What a folder holds.

    Attributes:
        folder: as it was named.
        identity: 12 hexadecimal digits of what the campaign was made with.
        checkpoint: that made the structures; None for the release, or where `weights` is empty.
        weights: identity of its weights; empty where the structures are of files.
        candidates: all structures.
    """

    folder: str
    identity: str
    checkpoint: str | None
    weights: str
    candidates: list[Candidate]

    @property
    def potentials(self) -> list[str]:
        """What the energies of its picks are from."""
        return sorted({each.potential for each in self.candidates if each.potential})


def read_campaign(folder: Path, max_hull: float = MAX_HULL) -> Campaign:
    """Read what `adit discover` or `adit predict` has left in a folder.

    Args:
        folder: with `results.db`, or `search.json` and `predictions.json`.
        max_hull: eV/atom; crystals above it are left out.

    Raises:
        NoCampaignError: the folder holds neither.
        StoreError: the database cannot be read.
    """
    if has_store(folder):
        return _discovered(folder, max_hull)
    about = read_search(folder)
    if about is not None and (folder / RECORDS).is_file():
        return _predicted(folder, about, max_hull)
    if not folder.is_dir():
        raise NoCampaignError(f"No folder {folder}. Give what adit discover --out has made.")
    if about is not None:
        raise NoCampaignError(
            f"{folder} holds a search without predictions. Finish it: adit predict --resume."
        )
    shards = sorted(folder.glob("shard-*-of-*"))
    if shards or is_results(folder):
        raise NoCampaignError(f"{folder} holds shards. Make them one: adit merge {folder}.")
    raise NoCampaignError(
        f"{folder} holds no campaign. Give the --out of adit discover or adit predict."
    )


def _identity(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(about).encode()).hexdigest()[:12]


def _discovered(folder: Path, max_hull: float) -> Campaign:
    with Store(folder, read_only=True) as store:
        recipe = store.metadata.get("recipe") or {}
        generators = recipe.get("generators") or [{}]
        return Campaign(
            str(folder),
            _identity({name: store.metadata.get(name) for name in ("recipe", "settings")}),
            generators[0].get("checkpoint"),
            str(recipe.get("checkpoint_hash") or ""),
            [_of_row(row, max_hull) for row in store.rows()],
        )


def _of_row(row: Any, max_hull: float) -> Candidate:
    columns, data = row.key_value_pairs, row.data
    kind, name = columns["kind"], str(data["adit"]["id"])
    if kind == "molecule":
        reason = why_no_molecule(columns, data)
        smiles = (data.get("report") or {}).get("smiles")
        return Candidate(kind, name, reason, None if reason else current_atoms(row), smiles=smiles)
    reason = why_no_crystal(columns, max_hull)
    energy = columns.get("energy_above_hull")
    potential = str(columns.get("potential", ""))
    return Candidate(kind, name, reason, None if reason else current_atoms(row), energy, potential)


def why_no_crystal(columns: Mapping[str, Any], max_hull: float) -> str:
    """Say why a crystal of a store is no pick; empty if it is one."""
    before = next(_before_relaxation(columns), "")
    return before or next(_after_relaxation(columns, max_hull), "")


def _before_relaxation(columns: Mapping[str, Any]) -> Iterator[str]:
    if "problem" in columns or not columns.get("structure_valid"):
        yield "are not valid"
    if not columns.get("unique"):
        yield "are duplicates"
    if not columns.get("novel"):
        yield "are known structures"
    if columns.get("stage") in WAITING:
        yield "wait to be relaxed (adit discover --resume)"
    if "relaxed" not in columns:
        filtered = columns.get("prefiltered") == 0
        yield "were left by the pre-filter" if filtered else "were not relaxed"
    if not columns["relaxed"]:
        yield "failed to relax"


def _after_relaxation(columns: Mapping[str, Any], max_hull: float) -> Iterator[str]:
    if not columns.get("converged"):
        yield "did not converge (more --max-steps)"
    if "energy_above_hull" not in columns:
        yield "have no place on the hull"
    if "hull_gap" in columns:
        yield "are of systems whose phases the hull does not know"
    if reason := _why_not_near(columns["energy_above_hull"], max_hull):
        yield reason
    if columns.get("novelty") == KNOWN_STRUCTURE:
        yield "became known structures"
    if "relaxed_duplicate_of" in columns:
        yield "became equal to a lower one"
    second = columns.get("confirm_energy_above_hull")
    if second is not None and not is_within(second, max_hull):
        yield f"{TOO_HIGH} by the second potential"


def _why_not_near(energy: float, max_hull: float) -> str:
    if energy < MIN_HULL:
        return TOO_LOW
    return "" if is_within(energy, max_hull) else TOO_HIGH


def why_no_molecule(columns: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Say why a molecule of a store is no pick; empty if it is one."""
    if not columns.get("strict_valid"):
        return "are not strictly valid"
    if not columns.get("unique"):
        return "are duplicates"
    if not columns.get("novel"):
        return "are known molecules"
    checks = (data.get("report") or {}).get("posebusters") or {}
    if not checks:
        return "were not checked by PoseBusters"
    if not checks.get(STRAIN, True):
        return "are strained (PoseBusters' energy)"
    return "" if all(checks.values()) else "fail another check of PoseBusters"


def _predicted(folder: Path, about: Mapping[str, Any], max_hull: float) -> Campaign:
    """Distinct structures of a search; the training set says which of them are known."""
    from adit_plugins.matching.fingerprints import Fingerprints
    from adit_plugins.structures.reading import read_structures

    try:
        records = json.loads((folder / RECORDS).read_text(encoding="utf-8"))["predictions"]
        structures = read_structures(folder / STRUCTURES) if records else []
        if len(records) != len(structures):
            raise ValueError(f"{len(records)} records, {len(structures)} structures")
        known = Fingerprints.load("crystal")
        pairs = zip(records, structures, strict=True)
        made = [_of_record(record, atoms, known, max_hull) for record, atoms in pairs]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoCampaignError(
            f"{folder} holds predictions that cannot be read ({error}). Write them again: adit "
            "predict --resume."
        ) from error
    recipe = about.get("recipe") or {}
    weights = str(about.get("weights") or "")
    return Campaign(str(folder), _identity(about), recipe.get("checkpoint"), weights, made)


def _of_record(
    record: Mapping[str, Any], atoms: Atoms, training_set: Fingerprints, max_hull: float
) -> Candidate:
    from adit_plugins.validity import is_structure_valid

    energy = record["energy_above_hull"]
    name = str([*record["sample_ids"], *record["variation_ids"], *record["known_as"]][0])
    structure = to_structure(atoms)
    if not is_structure_valid(structure):
        reason = "are not valid"
    elif record["known_as"] or training_set.contains(structure):
        reason = "are known structures"
    elif not record["converged"]:
        reason = "did not converge (more --max-steps)"
    elif energy is None:
        reason = "have no place on the hull"
    else:
        reason = _why_not_near(energy, max_hull)
    kept = None if reason else atoms
    return Candidate("crystal", name, reason, kept, energy, str(record["potential"]))
