"""The file that `adit relax` writes and goes on from: extxyz, a frame for each structure.

A frame holds the relaxed structure with energy, forces and stress, or the input where the
relaxation failed, and in `info["relax"]` its number in the input, its outcome and the settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from adit_model.outputs import replacing
from adit_plugins.outputs import without_nan
from adit_plugins.relax_results import RelaxResult

RELAX = "relax"


class ResumeError(ValueError):
    """A file is no unfinished part of this relaxation."""


def frame(index: int, result: RelaxResult, settings: Mapping[str, Any]) -> Atoms:
    """Return the structure of a result with its record."""
    atoms = result.atoms
    record = {"index": index, **result.as_record(), "settings": dict(settings)}
    atoms.info[RELAX] = without_nan(record)
    return atoms


def write_frames(frames: Mapping[int, Atoms], path: Path) -> None:
    """Write the frames in the order of the input; an earlier file is replaced when all is there."""
    with replacing(path) as temporary:
        ase.io.write(temporary, [frames[i] for i in sorted(frames)], format="extxyz")


def read_frames(
    path: Path, structures: Sequence[Atoms], settings: Mapping[str, Any]
) -> dict[int, Atoms]:
    """Return the finished frames by number.

    Raises:
        ResumeError: the file is none of ours, of other settings, or of other structures.
    """
    from adit_plugins.readers import read_structures

    frames: dict[int, Atoms] = {}
    for atoms in read_structures(path):
        record = atoms.info.get(RELAX)
        if not isinstance(record, dict) or "index" not in record:
            raise ResumeError(f"{path} was not written by adit relax. Choose another --out.")
        if record.get("settings") != dict(settings):
            raise ResumeError(
                f"{path} was made with {record.get('settings')}, not with {dict(settings)}. "
                "Choose another --out, or replace it with --overwrite."
            )
        index = int(record["index"])
        if index >= len(structures) or sorted(structures[index].numbers) != sorted(atoms.numbers):
            raise ResumeError(f"{path} holds other structures. Choose another --out.")
        frames[index] = atoms
    return frames


def result_of(atoms: Atoms, convention: str | None = None) -> RelaxResult:
    """Return what a file says of a structure's energy, as a result.

    Args:
        atoms: with an attached energy, of `adit relax`, `adit discover` or any other source.
        convention: overrules what the file says.

    Raises:
        ValueError: the energy's convention is not known.
    """
    record = atoms.info.get(RELAX, {})
    potential = str(record.get("potential", ""))
    energy = None
    if atoms.calc is not None:
        energy = atoms.calc.results.get("energy")
    if energy is None:
        reason = str(record.get("reason") or "no energy in the file; run adit relax first")
        return RelaxResult.failure(atoms, reason, potential)
    known = convention if convention is not None else record.get("convention")
    if known is None:
        raise ValueError(
            "the energy's convention is not in the file; say --convention mp2020 (CHGNet) or "
            "mp-raw (MACE-MP, raw DFT with the Materials Project's settings)"
        )
    return RelaxResult(
        atoms=atoms,
        converged=bool(record.get("converged", True)),
        reason=str(record.get("reason", "")),
        num_steps=int(record.get("num_steps", 0)),
        energy=float(energy),
        energy_per_atom=float(energy) / len(atoms),
        max_force=record.get("max_force"),
        potential=potential,
        convention=known,
    )
