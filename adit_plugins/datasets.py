"""Data sets to prepared arrays: QM9, MP-20 and users' own crystals.

Raw data are never shipped: QM9 comes from the package `qm9pack` or its archive, MP-20 from its
public files, or both from a file of the user's.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

    from adit_model.data import PreparedData

MP20_URL = "https://raw.githubusercontent.com/txie-93/cdvae/main/data/mp_20/{split}.csv"
MP20_ROWS = {"train": 27136, "val": 9047, "test": 9046}
QM9_URL = "https://ndownloader.figshare.com/files/3195389"  # dsgdb9nsd.xyz.tar.bz2
QM9_ROWS = {"qm9pack": 130831, "archive": 133885}
SPLITS = ("train", "val", "test")


class DatasetError(ValueError):
    """A data set is unknown, unreadable, incomplete or of another version."""


def prepare(names: list[str], out: Path, source: Path | None = None) -> list[Path]:
    """Write `NAME.safetensors` for each data set into `out`.

    Args:
        names: data sets, by entry point (group `adit.datasets`): `qm9`, `mp20`, `crystals`.
        out: folder for the prepared files; made if missing.
        source: the user's file or folder instead of a download (one name only).

    Raises:
        DatasetError: as its docstring says; nothing is left half-written.
    """
    from adit_plugins import registry

    if source is not None and len(names) != 1:
        raise DatasetError(f"--source serves one data set, got {len(names)}: {names}")
    loaders: list[Callable[..., PreparedData]] = [
        registry.load("adit.datasets", name) for name in names
    ]
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, loader in zip(names, loaders, strict=True):
        data = loader(source) if source is not None else loader()
        path = out / f"{name}.safetensors"
        data.save(path)
        written.append(path)
    return written


def split_by_row(row: int) -> int:
    """The split of molecule `row`: every 20th is test, every 20th + 10 is validation."""
    return {0: 2, 10: 1}.get(row % 20, 0)


def qm9(source: Path | None = None) -> PreparedData:
    """QM9 (Ramakrishnan et al. 2014, doi 10.1038/sdata.2014.22) as prepared arrays.

    Args:
        source: folder with qm9pack's CSV parts; by default the installed package's.

    Raises:
        DatasetError: `qm9pack` is not installed, or rows are missing.
    """
    import pandas as pd

    folder = source if source is not None else _qm9pack_folder()
    parts = sorted(folder.glob("qm9_part*.csv")) if folder.is_dir() else []
    if not parts:
        raise DatasetError(
            f"No qm9_part*.csv in {folder}. Install the package: pip install qm9pack"
        )
    columns = ["Elements", "XYZ_Ang"]
    table = pd.concat([pd.read_csv(p, usecols=columns) for p in parts], ignore_index=True)
    if len(table) != QM9_ROWS["qm9pack"]:
        raise DatasetError(
            f"{folder} holds {len(table)} molecules, expected {QM9_ROWS['qm9pack']}: "
            "incomplete download? Reinstall qm9pack."
        )
    return _assemble("qm9", "molecule", list(_qm9_rows(table)), f"qm9pack ({folder.name})")


def _qm9pack_folder() -> Path:
    from importlib.util import find_spec

    spec = find_spec("qm9pack")
    if spec is None or spec.origin is None:
        raise DatasetError("QM9 needs the package qm9pack: pip install qm9pack")
    return Path(spec.origin).parent / "data"


def _qm9_rows(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    from pymatgen.core import Element

    numbers = {symbol: Element(symbol).Z for symbol in ("H", "C", "N", "O", "F")}
    pairs = zip(table["Elements"], table["XYZ_Ang"], strict=True)
    for row, (elements, xyz) in enumerate(pairs):
        symbols = _numbers_or_words(elements)
        coords = np.array(_numbers_or_words(xyz), dtype=np.float64).reshape(-1, 3)
        yield {
            "atomic_numbers": [numbers[s] for s in symbols],
            "coords": coords - coords.mean(axis=0),
            "split": split_by_row(row),
        }


def _numbers_or_words(text: str) -> list[str]:
    """Split a bracketed list; QM9 writes small exponents as `*^`."""
    cleaned = text.replace("*^", "e")
    for character in "[](){},'\"\n":
        cleaned = cleaned.replace(character, " ")
    return cleaned.split()


def mp20(source: Path | None = None) -> PreparedData:
    """MP-20 (Xie et al. 2021, arXiv 2110.06197), from its public CSV files or a user's copy.

    Args:
        source: folder with train.csv, val.csv and test.csv; by default they are downloaded once
            into the cache (`~/.cache/adit-plugins`) and their checksums recorded there.

    Raises:
        DatasetError: a file is missing, changed since its first use, or has too few rows.
    """
    import pandas as pd

    folder = source if source is not None else Path.home() / ".cache" / "adit-plugins" / "mp_20"
    frames = []
    for split, expected in MP20_ROWS.items():
        path = folder / f"{split}.csv"
        if source is None:
            _download(MP20_URL.format(split=split), path)
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
    try:
        if source.is_dir():
            files = sorted(source.glob("*.cif"))
            table = pd.DataFrame({"cif": [f.read_text() for f in files]})
        elif source.suffix == ".parquet":
            table = pd.read_parquet(source)
        elif source.suffix == ".csv":
            table = pd.read_csv(source)
        else:
            raise DatasetError(
                f"{source}: unknown kind of file; use .parquet, .csv or a folder of .cif files."
            )
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
    kept, lost = [], 0
    for i, row in enumerate(rows):
        if row is None:
            lost += 1
        elif len(row["atomic_numbers"]) <= max_num_atoms:
            split = records[i].get("split")
            row["split"] = SPLITS.index(split) if split else split_by_row(i)
            kept.append(row)
    if lost:
        warnings.warn(f"{source}: {lost} of {len(rows)} crystals cannot be read", stacklevel=2)
    return _assemble(name, "crystal", kept, source)


def _crystal_row(record: dict[str, Any]) -> dict[str, Any] | None:
    """One crystal as arrays, or None if it cannot be read."""
    from pymatgen.core import Lattice, Structure

    warnings.filterwarnings("ignore")
    try:
        if record.get("cif") is not None:
            structure = Structure.from_str(record["cif"], fmt="cif")
        else:
            cell = [float(record[k]) for k in ("a", "b", "c", "alpha", "beta", "gamma")]
            numbers = [int(z) for z in record["atomic_numbers"]]
            frac = np.asarray(record["frac_coords"], dtype=float).reshape(-1, 3)
            structure = Structure(Lattice.from_parameters(*cell), numbers, frac)
        return canonical_crystal(structure)
    except Exception:  # noqa: BLE001 - one bad row of thousands is counted, not fatal
        return None


def canonical_crystal(structure: Structure) -> dict[str, Any]:
    """Niggli-reduced cell and atoms ordered by atomic number, then position.

    A fixed order and cell leave the denoiser one answer where any order would leave n!.

    Returns:
        `atomic_numbers`, `coords` (fractional, in [-0.02, 0.98)), `cell` (angstrom, degrees).
    """
    reduced = structure.get_reduced_structure(reduction_algo="niggli")
    numbers = np.array(reduced.atomic_numbers)
    frac = (np.array(reduced.frac_coords) + 0.02) % 1.0 - 0.02
    keys = np.round(frac, 2)
    order = np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0], numbers))
    return {
        "atomic_numbers": numbers[order].tolist(),
        "coords": frac[order],
        "cell": [*reduced.lattice.lengths, *reduced.lattice.angles],
    }


def _assemble(name: str, kind: str, rows: list[dict[str, Any]], source: str) -> PreparedData:
    import torch

    from adit_model.data import PreparedData

    if not rows:
        raise DatasetError(f"{name}: no structure to prepare from {source}")
    numbers = np.concatenate([np.asarray(r["atomic_numbers"], dtype=np.uint8) for r in rows])
    coords = np.concatenate([np.asarray(r["coords"], dtype=np.float32) for r in rows])
    cell = None
    if kind == "crystal":
        cell = torch.tensor(np.array([r["cell"] for r in rows]), dtype=torch.float32)
    return PreparedData(
        name=name,
        kind=kind,
        atomic_numbers=torch.from_numpy(numbers),
        coords=torch.from_numpy(coords),
        num_atoms=torch.tensor([len(r["atomic_numbers"]) for r in rows], dtype=torch.int32),
        split=torch.tensor([r["split"] for r in rows], dtype=torch.uint8),
        cell=cell,
        source=source,
    )


def _download(url: str, path: Path) -> None:
    """Fetch once; record the checksum on first use and compare it later.

    Raises:
        DatasetError: no network, or the file changed since its first use.
    """
    from urllib.error import URLError
    from urllib.request import urlopen

    record = path.with_suffix(".sha256.json")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        try:
            with urlopen(url) as response, temporary.open("wb") as file:  # noqa: S310
                while chunk := response.read(1 << 20):
                    file.write(chunk)
        except (URLError, OSError) as error:
            temporary.unlink(missing_ok=True)
            raise DatasetError(f"Cannot download {url}: {error}. Or pass --source PATH.") from error
        temporary.replace(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not record.is_file():
        record.write_text(json.dumps({"url": url, "sha256": digest}))
    elif json.loads(record.read_text())["sha256"] != digest:
        raise DatasetError(f"{path} changed since its first use; delete it to download it again.")
