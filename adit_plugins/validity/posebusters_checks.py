"""PoseBusters' checks of one molecule by name, and its strain energy.

PoseBusters: Buttenschoen et al. 2024, doi 10.1039/D3SC04185A; its "mol" configuration with its
own thresholds. One number differs from the published ADiT table (arXiv:2503.03965), whose clash
limit was 0.8 of the lower bound: that check is here too, under its own name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rdkit.Chem import Mol

ENERGY_CHECK = "internal_energy"
CLASH_CHECK = "internal_steric_clash"
PUBLISHED_CLASH_CHECK = "internal_steric_clash_0.8"
PUBLISHED_CLASH_LIMIT = 0.8  # of the distance-geometry lower bound; PoseBusters now takes 0.7
_CLOSEST_CONTACT = "shortest_noncovalent_relative_distance"
_EV_PER_KCAL_PER_MOL = 0.0433641


@dataclass(frozen=True)
class Checks:
    """Verdicts by name and the numbers behind them.

    Attributes:
        verdicts: check -> passed; a check that could not be done counts as failed.
        not_done: the checks that could not be done (no force-field parameters, no conformers).
        values: `energy_ratio` where it is known, `closest_contact` in units of the lower bound.
    """

    verdicts: dict[str, bool]
    not_done: list[str] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)


def bust_geometry(mol: Mol) -> Checks:
    """Run every check except the energy ratio; 0.1 s for a molecule of QM9.

    Args:
        mol: a whole molecule with explicit hydrogens and one conformer.
    """
    checks, report = _bust(mol, energy=False)
    contact = report.get(_CLOSEST_CONTACT, math.nan)
    far = not contact < PUBLISHED_CLASH_LIMIT  # NaN: there is no pair that could clash
    checks.verdicts[PUBLISHED_CLASH_CHECK] = checks.verdicts[CLASH_CHECK] and bool(far)
    if np.isfinite(contact):
        checks.values["closest_contact"] = float(contact)
    return checks


def bust_energy(mol: Mol) -> Checks:
    """Compare the UFF energy with the mean of 50 relaxed conformers (the limit is 100 times).

    The check is PoseBusters' own, with its weakness: where relaxed conformers have no energy at all
    (methane, ammonia) any real geometry has more than 100 times that, and fails.

    Half a second for most molecules of QM9, half a minute and more for cages, whose conformers
    are hard to embed: run it where it can be stopped (`adit_plugins.processes`).
    """
    from posebusters.modules.energy_ratio import get_energies

    checks, report = _bust(mol, energy=True)
    get_energies.cache_clear()  # it would keep every molecule ever seen
    ratio = report.get("energy_ratio", math.nan)
    if np.isfinite(ratio):
        checks.values["energy_ratio"] = float(ratio)
    return checks


def failing_atoms(mol: Mol) -> list[list[int]]:
    """Return the groups of atoms at which the checks of the geometry fail.

    Two atoms of a bond that is too long or short, three of an angle (its centre in the middle), two
    that clash, and the atoms of a ring or double bond that is not flat, or is flat and should not
    be. Hydrogens are left out, as PoseBusters does.

    Args:
        mol: as in `bust_geometry`.
    """
    from posebusters.modules.distance_geometry import check_geometry
    from posebusters.modules.flatness import check_flatness
    from rdkit.rdBase import BlockLogs

    groups: list[list[int]] = []
    for module in _config()["modules"]:
        parameters = module.get("parameters", {})
        with BlockLogs():
            if module["function"] == "distance_geometry":
                details = check_geometry(mol, **parameters).get("details")
                groups += [] if details is None else _outliers(details, parameters)
            elif module["function"] == "flatness":
                found = check_flatness(mol, **parameters).get("details") or {}
                passed = found.get("flatness_passes", [])
                groups += [
                    list(group)
                    for group, good in zip(found.get("planar_group", []), passed, strict=True)
                    if not good
                ]
    return [[int(atom) for atom in group] for group in groups]


def _outliers(details: dict[str, Any], limits: dict[str, float]) -> list[list[int]]:
    """The bonds, angles and contacts beyond the limits, by the columns of PoseBusters' details."""
    bonds, angles, contacts = details["bonds"], details["angles"], details["clash"]
    bad_bonds = bonds[bonds["percent_error"].abs() > limits["threshold_bad_bond_length"]]
    bad_angles = angles[angles["bound_absolute_percent_error"] > limits["threshold_bad_angle"]]
    clashes = contacts[contacts["bound_percent_error"] < -limits["threshold_clash"]]
    return [list(g) for g in (*bad_bonds["atom_pair"], *bad_angles["angle"], *clashes["atom_pair"])]


def strain_energy(mol: Mol) -> float | None:
    """Return the UFF energy above the nearest minimum, eV (1 eV = 23.06 kcal/mol).

    As in PoseCheck (Harris et al. 2023, arXiv:2308.07413). None without UFF parameters or where
    the minimisation does not converge.
    """
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers
    from rdkit.rdBase import BlockLogs

    copy = Chem.Mol(mol)
    with BlockLogs():
        try:
            if not rdForceFieldHelpers.UFFHasAllMoleculeParams(copy):
                return None
            force_field = rdForceFieldHelpers.UFFGetMoleculeForceField(copy)
            before = force_field.CalcEnergy()
            unconverged = force_field.Minimize(maxIts=2000)
            strain = (before - force_field.CalcEnergy()) * _EV_PER_KCAL_PER_MOL
        except (ValueError, RuntimeError):
            return None
    return None if unconverged or not math.isfinite(strain) else float(strain)


def check_names() -> list[str]:
    """Return the names of all checks: PoseBusters' own in its order, then the published clash."""
    return [*_names(_config()["modules"]), PUBLISHED_CLASH_CHECK]


def thresholds() -> dict[str, float]:
    """Return the limits in use, as PoseBusters' configuration names them."""
    limits = {}
    for module in _config()["modules"]:
        for name, value in module.get("parameters", {}).items():
            if name.startswith("threshold_") or name == "ensemble_number_conformations":
                key = f"{module['name']}: {name}"
                limits[key] = float(value)
    limits[PUBLISHED_CLASH_CHECK] = PUBLISHED_CLASH_LIMIT
    return limits


def _bust(mol: Mol, energy: bool) -> tuple[Checks, dict[str, Any]]:
    from rdkit.rdBase import BlockLogs

    buster = _buster(energy)
    with BlockLogs():
        report = buster.bust(mol, full_report=True).iloc[0].to_dict()
    names = _names(buster.config["modules"])
    answers = {name: _answer(report.get(name)) for name in names}
    not_done = [name for name, answer in answers.items() if answer is None]
    return Checks({name: bool(answer) for name, answer in answers.items()}, not_done), report


def _names(modules: list[dict[str, Any]]) -> list[str]:
    return [
        module.get("rename_outputs", {}).get(output, output).lower().replace(" ", "_")
        for module in modules
        for output in module.get("chosen_binary_test_output", [])
    ]


def _answer(value: Any) -> bool | None:
    """PoseBusters leaves NaN or NA where a check could not be done."""
    import pandas as pd

    return None if pd.isna(value) else bool(value)


@lru_cache(maxsize=2)
def _buster(energy: bool) -> Any:
    import logging

    import posebusters

    config = _config()
    modules = [each for each in config["modules"] if (each["function"] == "energy_ratio") == energy]
    if energy:
        # The configuration lists the module twice; the one that names its output is enough. One
        # thread: molecules are spread over processes, and 0 would take every core.
        modules = [each for each in modules if "chosen_binary_test_output" in each]
        for module in modules:
            module["parameters"]["num_threads"] = 1
    logging.getLogger("posebusters").setLevel(logging.ERROR)  # its warnings are in the result
    return posebusters.PoseBusters(config | {"modules": modules})


def _config() -> dict[str, Any]:
    from pathlib import Path

    import posebusters
    from yaml import safe_load

    path = Path(posebusters.__file__).parent / "config" / "mol.yml"
    config: dict[str, Any] = safe_load(path.read_text(encoding="utf-8"))
    return config
