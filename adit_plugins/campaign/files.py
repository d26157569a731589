"""The files that a campaign leaves."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins import __version__
from adit_plugins.campaign.funnel import crystal_funnel, molecule_funnel
from adit_plugins.campaign.pipeline import Campaign, Crystal, MoleculeRecord
from adit_plugins.outputs import replacing, without_nan
from adit_plugins.relax_files import RELAX
from adit_plugins.relax_results import outcomes

if TYPE_CHECKING:
    from adit_plugins.samples import Sample

SUMMARY = "summary.json"
CIFS = "cif"
FORMAT = "adit discover"  # marks a folder of results as ours
FILES = (
    "crystals.extxyz", "relaxed.extxyz", "molecules.extxyz", "molecules.sdf", "candidates.json",
    SUMMARY,
)  # fmt: skip
VERSIONS = ("torch", "ase", "pymatgen", "rdkit", "smact", "posebusters", "chgnet")


def write_files(campaign: Campaign, out: Path, recipe: dict[str, Any]) -> list[Path]:
    """Write everything into `out`; each file is replaced only by a complete one.

    Args:
        campaign: finished or interrupted.
        out: an existing folder.
        recipe: what the user asked for; recorded.

    Returns:
        The files and folders that were written.
    """
    crystals = [crystal.sample for crystal in campaign.crystals]
    molecules = [molecule.sample for molecule in campaign.molecules]
    relaxed = [c for c in campaign.crystals if c.is_relaxed]
    header = _header(campaign, recipe)
    written = [
        *_write_samples(crystals, out / "crystals.extxyz"),
        *_write_relaxed(relaxed, out / "relaxed.extxyz"),
        *_write_cifs(relaxed or [c for c in campaign.crystals if c.structure_valid], out / CIFS),
        *_write_samples(molecules, out / "molecules.extxyz"),
        *_write_samples(molecules, out / "molecules.sdf"),
    ]
    records = {
        "crystals": [_crystal_dict(crystal) for crystal in campaign.crystals],
        "molecules": [_molecule_dict(molecule) for molecule in campaign.molecules],
    }
    written.append(_write_json(header | records, out / "candidates.json"))
    counts = {
        "crystals": [rate.as_dict() for rate in crystal_funnel(campaign.crystals)],
        "molecules": [rate.as_dict() for rate in molecule_funnel(campaign.molecules)],
    }
    results = [c.relaxation for c in campaign.crystals if c.relaxation is not None]
    if results:
        header["relaxation_outcomes"] = outcomes(results)
    files = sorted(path.name for path in [*written, out / SUMMARY])
    written.append(_write_json(header | {"counts": counts, "files": files}, out / SUMMARY))
    _remove_stale(out, written)
    return written


def is_results(folder: Path) -> bool:
    """Whether a folder holds the results of a campaign."""
    try:
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def _remove_stale(out: Path, written: Sequence[Path]) -> None:
    """Files of an earlier run that this one did not replace; a user's own files stay."""
    for name in set(FILES) - {path.name for path in written}:
        (out / name).unlink(missing_ok=True)
    if out / CIFS not in written and (out / CIFS / "index.csv").is_file():
        shutil.rmtree(out / CIFS)


def _write_samples(samples: Sequence[Sample], path: Path) -> list[Path]:
    """An SDF leaves out molecules without a bond assignment, and may come out empty."""
    from adit_plugins.writers import write_samples

    return [path] if samples and write_samples(samples, path).written else []


def _write_cifs(crystals: Sequence[Crystal], folder: Path) -> list[Path]:
    """The relaxed geometry where there is one, else the generated one."""
    from adit_plugins.samples import Sample

    samples = [
        c.sample if c.relaxation is None else Sample.from_ase(c.relaxation.atoms) for c in crystals
    ]
    return _write_samples(samples, folder)


def _write_relaxed(crystals: Sequence[Crystal], path: Path) -> list[Path]:
    """Relaxed structures with energy, forces and stress, and their place on the hull."""
    import ase.io

    frames = []
    for crystal in crystals:
        assert crystal.relaxation is not None  # the caller has chosen
        atoms = crystal.relaxation.atoms
        record = without_nan(crystal.relaxation.as_record())
        atoms.info |= {
            "converged": crystal.relaxation.converged,
            "potential": crystal.relaxation.potential,
            RELAX: record,  # for `adit hull`
        }
        if crystal.hull is not None:
            atoms.info |= {
                "formation_energy_per_atom": crystal.formation_energy_per_atom,
                "energy_above_hull": crystal.energy_above_hull,
            }
        frames.append(atoms)
    if not frames:
        return []
    with replacing(path) as temporary:
        ase.io.write(temporary, frames, format="extxyz")
    return [path]


def _crystal_dict(crystal: Crystal) -> dict[str, Any]:
    result, sample = crystal.relaxation, crystal.sample
    relaxation = None
    if result is not None:
        relaxation = result.as_record()
    verdicts = ("structure_valid", "composition_valid", "min_distance", "unique", "duplicate_of",
                "novel", "formation_energy_per_atom", "energy_above_hull", "rank")  # fmt: skip
    return {
        "id": sample.id,
        "formula": crystal.structure.composition.reduced_formula,
        "num_atoms": sample.num_atoms,
        **{name: getattr(crystal, name) for name in verdicts},
        "hull": None if crystal.hull is None else dataclasses.asdict(crystal.hull),
        "hull_problem": crystal.hull_problem,
        "relaxation": relaxation,
        "provenance": sample.provenance,
        "structure": _structure_dict(sample),
    }


def _molecule_dict(molecule: MoleculeRecord) -> dict[str, Any]:
    report = {} if molecule.report is None else dataclasses.asdict(molecule.report)
    return {
        "id": molecule.sample.id,
        "formula": molecule.sample.to_ase().get_chemical_formula(),
        "num_atoms": molecule.sample.num_atoms,
        **report,
        "unique": molecule.unique,
        "duplicate_of": molecule.duplicate_of,
        "novel": molecule.novel,
        "provenance": molecule.sample.provenance,
        "structure": _structure_dict(molecule.sample),
    }


def _structure_dict(sample: Sample) -> dict[str, Any]:
    """As generated, for pymatgen's `from_dict`; the relaxed one is in relaxed.extxyz."""
    content: dict[str, Any] = sample.to_pymatgen().as_dict()
    del content["properties"]  # the provenance, which stands beside it
    return content


def _header(campaign: Campaign, recipe: dict[str, Any]) -> dict[str, Any]:
    versions = {"adit-plugins": __version__}
    for name in VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "format": FORMAT,
        "interrupted": campaign.interrupted,
        "recipe": recipe,
        "relaxation": dataclasses.asdict(campaign.settings),
        "seconds": campaign.seconds,
        "versions": versions,
    }


def _write_json(content: dict[str, Any], path: Path) -> Path:
    text = json.dumps(without_nan(content), indent=1, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
