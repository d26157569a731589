"""Labelled structures on disk, whole formulas of which are held out."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from adit_plugins.relax.results import CONVENTIONS, MP2020

MANIFEST = "labels.json"
ARRAYS = (
    "num_atoms",
    "numbers",
    "positions",
    "cells",
    "energy",
    "forces",
    "stress",
    "group",
    "way",
)
# What NumPy raises at a shard that is cut short, empty, changed or no shard at all.
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
VALIDATION, TEST = range(5), range(5, 10)  # per cent of the formulas


class LabelError(ValueError):
    """Labels cannot be made or read."""


@dataclass(frozen=True)
class Labels:
    """Labelled structures of a shard or of many; see `ARRAYS`.

    `num_atoms` [structures], `numbers` [atoms], `positions` [atoms, 3] angstrom, `cells`
    [structures, 3, 3] angstrom in rows, `energy` [structures] eV, `forces` [atoms, 3]
    eV/angstrom, `stress` [structures, 3, 3] eV/cubic angstrom, `group` (reduced formula) and
    `way` (source and disturbance) [structures]. A molecule's cell is zero.
    """

    num_atoms: NDArray[np.int64]
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cells: NDArray[np.float64]
    energy: NDArray[np.float64]
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    group: NDArray[np.str_]
    way: NDArray[np.str_]

    @classmethod
    def load(cls, folders: Sequence[Path]) -> Labels:
        """Read all shards of folders.

        Raises:
            LabelError: a folder holds none, or a shard is damaged.
        """
        parts: list[dict[str, Any]] = []
        for folder in folders:
            shards = sorted(folder.glob("shard-*.npz"))
            if not shards:
                raise LabelError(f"No labels in {folder}. Make them with `adit train labels`.")
            for shard in shards:
                try:
                    with np.load(shard, allow_pickle=False) as arrays:
                        parts.append(_checked({name: arrays[name] for name in ARRAYS}))
                except DAMAGE as error:
                    said = str(error).partition(". ")[0].rstrip(".")
                    raise LabelError(
                        f"{shard} is damaged: {said}. Delete it and label again."
                    ) from error
        return cls(**{name: np.concatenate([part[name] for part in parts]) for name in ARRAYS})

    def split(self, name: str) -> NDArray[np.int64]:
        """Return the places of a split's structures: `train`, `val` or `test`."""
        splits = {group: split_of(group) for group in set(self.group.tolist())}
        return np.flatnonzero([splits[group] == name for group in self.group.tolist()])

    @property
    def molecules(self) -> NDArray[np.bool_]:
        """Whether each is a molecule, [structures]."""
        return np.asarray(~self.cells.any(axis=(1, 2)), dtype=np.bool_)

    def atoms(self, place: int, part: slice) -> Atoms:
        """Return a structure; `part` says where its atoms are."""
        cell = self.cells[place]
        return Atoms(self.numbers[part], self.positions[part], cell=cell, pbc=bool(cell.any()))

    def __len__(self) -> int:
        return len(self.num_atoms)


def _checked(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return a shard's arrays if they belong together: one atom too few would shift all others.

    Raises:
        ValueError: an array has another shape, or numbers that are not finite.
    """
    structures, atoms = len(arrays["num_atoms"]), int(arrays["num_atoms"].sum())
    shapes: dict[str, tuple[int, ...]] = {
        "numbers": (atoms,),
        "positions": (atoms, 3),
        "cells": (structures, 3, 3),
        "energy": (structures,),
        "forces": (atoms, 3),
        "stress": (structures, 3, 3),
        "group": (structures,),
        "way": (structures,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}")
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    return arrays


@dataclass(frozen=True)
class Taught:
    """Who the labels of crystals, and of molecules, are from, and on which scale crystals' are."""

    crystals: str = ""
    convention: str = ""
    molecules: str = ""


def taught(folders: Sequence[Path]) -> Taught:
    """Read from the folders' manifests whose labels they hold.

    Raises:
        LabelError: a manifest is damaged, or crystals (or molecules) have labels of two teachers.
    """
    found: dict[str, tuple[str, str]] = {}
    for folder in folders:
        said = _said_of(folder)
        kinds = {"molecules" if each else "crystals" for each in Labels.load([folder]).molecules}
        for kind in kinds:
            before = found.setdefault(kind, said)
            if before != said:
                raise LabelError(
                    f"{folder} has {kind} labelled by {' '.join(said)}, a folder before by "
                    f"{' '.join(before)}: their energies are on two scales. Leave one out."
                )
    crystals = found.get("crystals", ("", ""))
    return Taught(*crystals, molecules=found.get("molecules", ("", ""))[0])


def _said_of(folder: Path) -> tuple[str, str]:
    """Teacher and convention of a folder; what was made before they were written was CHGNet's."""
    path = folder / MANIFEST
    if not path.is_file():
        return "unknown", ""
    try:
        content = json.loads(path.read_text())
        teacher, convention = str(content["teacher"]), str(content.get("convention", MP2020))
        if convention not in ("", *CONVENTIONS):
            raise ValueError(f"convention '{convention}' is none of {', '.join(CONVENTIONS)}")
        return teacher, convention
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelError(
            f"{path} is damaged: {error!r}. Label again into another --out."
        ) from error


def split_of(formula: str) -> str:
    """Return the split of a reduced formula: whole formulas are held out, never copies."""
    percent = int(hashlib.sha256(formula.encode()).hexdigest(), 16) % 100
    return "val" if percent in VALIDATION else "test" if percent in TEST else "train"
