"""The file that `adit relax` writes and goes on from: extxyz, a frame for each structure.

A frame holds the relaxed structure with energy, forces and stress, or the input where the
relaxation failed, and in `info["relax"]` its number in the input, its outcome and the settings.
What could not be read is a frame without atoms, so that all structures stay in every count.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from adit_model.outputs import replacing
from adit_plugins.outputs import differences, without_nan
from adit_plugins.relax.results import RelaxResult
from adit_plugins.structures.entries import MATERIAL_ID
from adit_plugins.structures.provenance import provenance_in

RELAX = "relax"
# By these our record is known: files of others may have a key `relax` of their own.
_SHAPE = {"converged": bool, "reason": str, "num_steps": int, "potential": str, "convention": str}


class ResumeError(ValueError):
    """A file is no unfinished part of this relaxation."""


def frame(index: int, result: RelaxResult, settings: Mapping[str, Any]) -> Atoms:
    """Return the structure of a result with its record."""
    atoms = result.atoms
    # A text of several lines, as databases hold it, would end the line of an extxyz file.
    atoms.info = {
        key: " ".join(value.split()) if isinstance(value, str) else value
        for key, value in atoms.info.items()
    }
    record = {"index": index, **result.as_record(), "settings": dict(settings)}
    atoms.info[RELAX] = without_nan(record)
    return atoms


def unreadable(name: str, reason: str) -> RelaxResult:
    """Return the failure of an entry of which there is no structure; it keeps its name."""
    empty = Atoms(info={MATERIAL_ID: name})
    return RelaxResult.failure(empty, f"unreadable: {reason}", "")


def name_of(atoms: Atoms) -> str:
    """Return the id that a structure brought along, or nothing."""
    own = provenance_in(atoms.info).get("id") or atoms.info.get(MATERIAL_ID)
    return "" if own is None else str(own)


def write_frames(frames: Mapping[int, Atoms], path: Path) -> None:
    """Write the frames in the order of the input; an earlier file is replaced when all is there."""
    with replacing(path) as temporary:
        ase.io.write(temporary, [frames[i] for i in sorted(frames)], format="extxyz")


def append_frame(atoms: Atoms, path: Path) -> None:
    """Add a frame to a file, in whatever order."""
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    append_durably(path, text.getvalue())


def append_durably(path: Path, text: str) -> None:
    """Add text to a file and wait until it is on the disk: what is finished survives a crash."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_frames(
    path: Path, structures: Sequence[Atoms | None], settings: Mapping[str, Any]
) -> dict[int, Atoms]:
    """Return the finished frames by number; what a crash left of the last one is passed over.

    Args:
        path: of the file.
        structures: the input; None for what cannot be read.
        settings: of this relaxation.

    Raises:
        ResumeError: the file is none of ours, of other settings, of other structures, or damaged
            before its end.
    """
    from adit_plugins.structures.reading import iter_entries

    entries = list(iter_entries(path))
    if entries and (entries[-1].atoms is None or not _ends_with_a_line(path)):
        entries.pop()
    frames: dict[int, Atoms] = {}
    for entry in entries:
        if entry.atoms is None:
            raise ResumeError(f"{entry.name}: {entry.reason}. Choose another --out.")
        record = record_in(entry.atoms)
        if "index" not in record:
            raise ResumeError(f"{path} was not written by adit relax. Choose another --out.")
        if differ := differences(record.get("settings") or {}, settings):
            raise ResumeError(
                f"{path} was made with other settings: {'; '.join(differ)}. Choose another --out, "
                "or replace it with --overwrite."
            )
        index = int(record["index"])
        given = structures[index] if index < len(structures) else None
        if given is not None and sorted(given.numbers) == sorted(entry.atoms.numbers):
            frames[index] = entry.atoms
        elif given is not None or index >= len(structures):
            raise ResumeError(f"{path} holds other structures. Choose another --out.")
    return frames


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def record_in(atoms: Atoms) -> dict[str, Any]:
    """Return the record that `adit relax` or `adit discover` left in a structure; else nothing."""
    record = atoms.info.get(RELAX)
    if not isinstance(record, dict):
        return {}
    ours = all(isinstance(record.get(key), kind) for key, kind in _SHAPE.items())
    return dict(record) if ours else {}


def result_of(atoms: Atoms, convention: str | None = None) -> RelaxResult:
    """Return what a file says of a structure's energy, as a result.

    Args:
        atoms: with an attached energy, of `adit relax`, `adit discover` or any other source.
        convention: overrules what the file says.

    Raises:
        ValueError: the energy's convention is not known.
    """
    record = record_in(atoms)
    potential = str(record.get("potential", ""))
    energy = None if atoms.calc is None else atoms.calc.results.get("energy")
    if energy is None:
        reason = str(record.get("reason") or "no energy in the file; run adit relax first")
        return RelaxResult.failure(atoms, reason, potential)
    if not isinstance(energy, Real) or isinstance(energy, bool) or not math.isfinite(energy):
        reason = f"the energy in the file is no number: {energy!s:.40}"
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
        constraints="kept" if atoms.constraints else str(record.get("constraints", "")),
        max_free_force=record.get("max_free_force"),
    )
