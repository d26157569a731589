"""Formulas without structures, for the prior: far more are known than crystals to learn from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins.datasets.common import SPLITS, assemble, split_by_row
from adit_plugins.datasets.errors import DatasetError
from adit_plugins.datasets.labels import KNOWN, number_of, parse_labels
from adit_plugins.datasets.streams import Fate, sorted_out
from adit_plugins.structures.entries import ReadingNotice

if TYPE_CHECKING:
    from adit_model.data import PreparedData

FORMULA, NUM_ATOMS = "formula", "num_atoms"


def formulas(
    source: Path | None = None, max_num_atoms: int = 20, labels: Iterable[str] = ()
) -> PreparedData:
    """A table (CSV or parquet) of crystals' formulas: compositions, which train the prior alone.

    The column `formula` is needed. `num_atoms` is the size of the cell; without it the formula is
    the cell's as it is written. Of a cell that is too large, as many formula units as fit are
    taken. `split` (train, val, test), `energy_above_hull`, `band_gap` and others are as in
    `crystals`.

    Args:
        source: the file.
        max_num_atoms: largest cell.
        labels: further columns that the prior can be told, as in `crystals`.

    Raises:
        DatasetError: the file is missing or unreadable, has no such column, or nothing passes.
    """
    if source is None:
        raise DatasetError("The data set 'formulas' is your own table: pass --source PATH.")
    units = parse_labels(labels)
    wanted = [name for name in units if name not in KNOWN]
    fates = _fates(_rows(source), max_num_atoms, units)
    rows, left, first = sorted_out(fates)
    for reason, count in left.items():
        text = f"{source.name}: {count} of {len(rows) + left.total()} rows {reason} and are left "
        warnings.warn(f"{text}out; the first: {first[reason]}", ReadingNotice, stacklevel=2)
    if not rows:
        raise DatasetError(f"{source}: no row has a formula of at most {max_num_atoms} atoms.")
    return assemble("formulas", "crystal", rows, source.name, units, wanted)


def _rows(source: Path) -> list[dict[str, Any]]:
    """The rows of a table.

    Raises:
        DatasetError: the file is missing or unreadable, or has no column `formula`.
    """
    import pandas as pd

    if not source.is_file():
        raise DatasetError(f"No such file: {source}")
    try:
        if source.suffix == ".parquet":
            table = pd.read_parquet(source)
        else:  # a comma, a semicolon or a tab; "NaN" and "None" would be no formulas, "" is none
            table = pd.read_csv(source, sep=None, engine="python", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's errors are ValueErrors
        raise DatasetError(f"{source} cannot be read as a table: {error}") from error
    if FORMULA not in table.columns:
        names = ", ".join(map(str, table.columns[:12]))
        raise DatasetError(f"{source} has no column 'formula'; its columns: {names}")
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _fates(
    rows: Iterable[Mapping[str, Any]], max_num_atoms: int, units: Mapping[str, str]
) -> Iterator[Fate]:
    for number, row in enumerate(rows):
        text = str(row[FORMULA])
        cell = cell_of(text, row.get(NUM_ATOMS), max_num_atoms)
        if isinstance(cell, str):
            yield Fate(number, None, cell, repr(text))
            continue
        split = row.get("split") or None
        if split is not None and split not in SPLITS:
            raise DatasetError(f"row {number}: split must be one of {SPLITS}, got {split!r}")
        yield Fate(
            number,
            {
                "atomic_numbers": cell,
                "split": SPLITS.index(split) if split else split_by_row(number),
                "labels": {name: number_of(row[name]) for name in units if name in row},
            },
        )


def cell_of(formula: str, num_atoms: Any, max_num_atoms: int) -> list[int] | str:
    """Atomic numbers of a cell, rising; or why there is none, as in "3 rows REASON".

    Args:
        formula: such as `Fe2O3`, `Ca(OH)2`.
        num_atoms: of the cell; empty or NaN: as the formula is written.
        max_num_atoms: largest cell; of a larger one, as many formula units as fit.
    """
    from pymatgen.core import Composition, Element

    try:
        amounts = Composition(formula).element_composition.get_el_amt_dict()
    except ValueError:
        return "have a formula that cannot be read"
    counts = {symbol: round(amount) for symbol, amount in amounts.items()}
    if not counts or any(abs(counts[s] - n) > 1e-6 or n < 1 for s, n in amounts.items()):
        return "have a formula without whole numbers of atoms"
    unit = math.gcd(*counts.values())
    atoms = sum(counts.values()) // unit  # of one formula unit
    size = number_of(num_atoms)
    wanted = sum(counts.values()) if math.isnan(size) else size
    if wanted < atoms or wanted % atoms:
        return "have a num_atoms that is no multiple of the formula"
    times = min(int(wanted), max_num_atoms) // atoms
    if not times:
        return f"have a formula of more than {max_num_atoms} atoms"
    numbers = {Element(symbol).Z: n // unit * times for symbol, n in counts.items()}
    return [z for z in sorted(numbers) for _ in range(numbers[z])]
