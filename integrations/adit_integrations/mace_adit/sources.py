"""What `adit train labels` labels: crystals of tables, crystals and molecules of any file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from adit_integrations.mace_adit.label_set import LabelError
from adit_plugins.relax.results import broken_geometry


def read_sources(paths: Sequence[Path], max_atoms: int) -> dict[str, list[Atoms]]:
    """Read what is to be labelled, by the names that `way` will hold.

    Raises:
        LabelError: two files have one name, or there is nothing to label in any.
        ValueError: a file is missing or unreadable.
    """
    sources: dict[str, list[Atoms]] = {}
    for path in paths:
        if path.stem in sources:
            raise LabelError(
                f"Two sources are named '{path.stem}', which labels are told apart by. Rename "
                f"{path}, or label it into another --out."
            )
        sources[path.stem] = read_source(path, max_atoms)
    if not any(sources.values()):
        raise LabelError(
            f"No crystal or molecule of at most {max_atoms} atoms in {', '.join(map(str, paths))}. "
            "Larger structures (see --max-atoms), slabs and broken ones are left out."
        )
    return sources


def read_source(path: Path, max_atoms: int) -> list[Atoms]:
    """Read crystals of a table (.parquet), or crystals and molecules of any file of structures.

    What is broken is left out.

    Raises:
        ValueError: the file is missing or unreadable.
    """
    if path.suffix == ".parquet":
        found = _read_table(path, max_atoms)
    else:
        from adit_plugins.structures.reading import iter_entries

        found = [entry.atoms for entry in iter_entries(path) if entry.atoms is not None]
    return [
        atoms
        for atoms in found
        if len(atoms) <= max_atoms
        and atoms.pbc.all() == atoms.pbc.any()
        and not broken_geometry(atoms, "", False)
    ]


def _read_table(path: Path, max_atoms: int) -> list[Atoms]:
    from adit_plugins.datasets.crystals import crystals

    data = crystals(path, max_num_atoms=max_atoms, max_energy_above_hull=float("inf"))
    sizes = data.num_atoms.tolist()
    assert data.coords is not None
    assert data.cell is not None
    return [
        Atoms(numbers=numbers.numpy(), scaled_positions=frac.numpy(), cell=cell, pbc=True)
        for numbers, frac, cell in zip(
            data.atomic_numbers.split(sizes),
            data.coords.split(sizes),
            data.cell.tolist(),
            strict=True,
        )
    ]
