"""Crystals as prepared arrays: MP-20 and users' own tables or CIF folders."""

from __future__ import annotations

import json
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adit_plugins.datasets.common import (
    SPLITS,
    DatasetError,
    assemble,
    cache,
    download,
    split_by_row,
)
from adit_plugins.samples import MAX_ATOMIC_NUMBER

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

    from adit_model.data import PreparedData

MP20_URL = "https://raw.githubusercontent.com/txie-93/cdvae/main/data/mp_20/{split}.csv"
MP20_ROWS = {"train": 27136, "val": 9047, "test": 9046}


def mp20(source: Path | None = None) -> PreparedData:
    """MP-20 (Xie et al. 2021, arXiv 2110.06197), from its public CSV files or a user's copy.

    Args:
        source: folder with train.csv, val.csv and test.csv; by default they are downloaded once
            into the cache (`~/.cache/adit-plugins`) and their checksums recorded there.

    Raises:
        DatasetError: a file is missing, changed since its first use, or has too few rows.
    """
    import pandas as pd

    folder = source if source is not None else cache() / "mp_20"
    frames = []
    for split, expected in MP20_ROWS.items():
        path = folder / f"{split}.csv"
        if source is None:
            download(MP20_URL.format(split=split), path)
        if not path.is_file():
            raise DatasetError(f"No {path}. MP-20 is {', '.join(MP20_ROWS)} (.csv) in one folder.")
        frame = pd.read_csv(path, usecols=["material_id", "cif"])
        if len(frame) != expected:
            raise DatasetError(f"{path} has {len(frame)} rows, MP-20 has {expected} there.")
        frames.append(frame.assign(split=split))
    return _from_table("mp20", pd.concat(frames, ignore_index=True), str(MP20_URL))


def crystals(
    source: Path | None = None, max_num_atoms: int = 20, max_energy_above_hull: float = 0.1
) -> PreparedData:
    """A user's crystals: a parquet or CSV table, or a folder of CIF files.

    A table has either a `cif` column or `atomic_numbers`, `frac_coords` (flat), `a`, `b`, `c`,
    `alpha`, `beta`, `gamma`; optional columns are `split` (train, val, test) and
    `energy_above_hull`. Without `split`, every 20th row is test and every 20th + 10 validation.

    Args:
        source: the file or folder.
        max_num_atoms: larger cells are left out.
        max_energy_above_hull: eV/atom; rows above it are left out where the column exists.

    Raises:
        DatasetError: the source is missing, unreadable, or lacks columns.
    """
    import pandas as pd

    if source is None:
        raise DatasetError("The data set 'crystals' is your own file: pass --source PATH.")
    table = _read_table(source)
    if "energy_above_hull" in table:
        table = table[table["energy_above_hull"] <= max_energy_above_hull]
    if "num_atoms" in table:
        table = table[table["num_atoms"] <= max_num_atoms]
    if table.empty:
        raise DatasetError(f"{source}: no structure passes the filters.")
    if "split" in table and not set(table["split"]) <= set(SPLITS):
        raise DatasetError(f"{source}: split must be one of {SPLITS}, got {set(table['split'])}")
    return _from_table(
        "crystals", pd.DataFrame(table).reset_index(drop=True), source.name, max_num_atoms
    )


def _read_table(source: Path) -> pd.DataFrame:
    import pandas as pd

    if not source.exists():
        raise DatasetError(f"No such file or folder: {source}")
    if not source.is_dir() and source.suffix not in (".parquet", ".csv"):
        raise DatasetError(
            f"{source}: unknown kind of file; use .parquet, .csv or a folder of .cif files."
        )
    try:
        if source.is_dir():
            files = sorted(source.glob("*.cif"))
            table = pd.DataFrame({"cif": [f.read_text() for f in files]})
        elif source.suffix == ".parquet":
            table = pd.read_parquet(source)
        else:
            table = pd.read_csv(source)
    except (OSError, ValueError, ImportError) as error:
        raise DatasetError(f"{source} cannot be read: {error}") from error
    arrays = {"atomic_numbers", "frac_coords", "a", "b", "c", "alpha", "beta", "gamma"}
    if "cif" not in table and not arrays <= set(table.columns):
        raise DatasetError(f"{source} lacks columns: needs `cif`, or {sorted(arrays)}.")
    return table


def _from_table(
    name: str, table: pd.DataFrame, source: str, max_num_atoms: int = 20
) -> PreparedData:
    """Reduce and order every crystal, in processes; count what cannot be read."""
    records = table.to_dict("records")
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(_crystal_row, records, chunksize=64))
    kept, lost, large = [], 0, 0
    for i, row in enumerate(rows):
        if row is None:
            lost += 1
        elif len(row["atomic_numbers"]) <= max_num_atoms:
            split = records[i].get("split")
            row["split"] = SPLITS.index(split) if split else split_by_row(i)
            kept.append(row)
        else:
            large += 1
    if lost:
        warnings.warn(f"{source}: {lost} of {len(rows)} crystals cannot be read", stacklevel=2)
    if large:
        text = f"{source}: {large} of {len(rows)} crystals have more than {max_num_atoms} atoms"
        warnings.warn(f"{text} in the reduced cell and are left out", stacklevel=2)
    return assemble(name, "crystal", kept, source)


def _crystal_row(record: dict[str, Any]) -> dict[str, Any] | None:
    """One crystal as arrays, or None if it cannot be read."""
    from pymatgen.core import Lattice, Structure

    warnings.filterwarnings("ignore")
    try:
        if record.get("cif") is not None:
            structure = Structure.from_str(record["cif"], fmt="cif")
        else:
            cell = [float(record[k]) for k in ("a", "b", "c", "alpha", "beta", "gamma")]
            numbers: list[Any] = [int(z) for z in _listed(record["atomic_numbers"])]
            frac = np.asarray(_listed(record["frac_coords"]), dtype=float).reshape(-1, 3)
            structure = Structure(Lattice.from_parameters(*cell), numbers, frac)
        return canonical_crystal(structure)
    except Exception:  # noqa: BLE001 - one bad row of thousands is counted, not fatal
        return None


def _listed(value: Any) -> Any:
    """A list as it is in a parquet file; in a CSV it is the text `[1, 2]`."""
    return json.loads(value) if isinstance(value, str) else value


def training_order(numbers: NDArray[Any], frac: NDArray[Any]) -> NDArray[np.int64]:
    """Places of a crystal's atoms `[num_atoms]` by atomic number, then fractional coordinates."""
    keys = np.round(frac, 2)
    order: NDArray[np.int64] = np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0], numbers))
    return order


def canonical_crystal(structure: Structure) -> dict[str, Any]:
    """Niggli-reduced cell and atoms ordered by atomic number, then position.

    A fixed order and cell leave the denoiser one answer where any order would leave n!.

    Returns:
        `atomic_numbers`, `coords` (fractional, in [-0.02, 0.98)), `cell` (angstrom, degrees).

    Raises:
        ValueError: there is a dummy atom, or an element beyond the network's.
    """
    reduced = structure.get_reduced_structure(reduction_algo="niggli")
    numbers = np.array(reduced.atomic_numbers)
    if not ((numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER)).all():
        raise ValueError(f"an atomic number is not in 1..{MAX_ATOMIC_NUMBER} (0 is a dummy atom)")
    frac = (np.array(reduced.frac_coords) + 0.02) % 1.0 - 0.02
    order = training_order(numbers, frac)
    return {
        "atomic_numbers": numbers[order].tolist(),
        "coords": frac[order],
        "cell": [*reduced.lattice.lengths, *reduced.lattice.angles],
    }
