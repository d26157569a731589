"""One hull table from the energies of several sources, each on the scale of the first.

The command is `adit_plugins.cli.shipped_data hull`. A release of the Materials Project fixes the
hull at its formulas; other rows are phases at their formation energy, those with other corrections
after `adit_plugins.hull.scales` has brought them to the scale of 2020. Their lower convex envelope
is the table.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.outputs import replacing
from adit_plugins.hull.energies import ConventionError
from adit_plugins.hull.scales import LEGACY, SCALES, shift_to_mp2020
from adit_plugins.hull.table import Hull, atomic_fractions

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

ENERGY = "formation_energy_per_atom"
COLUMNS = ["material_id", "formula", ENERGY]
ABOVE_HULL = "energy_above_hull"
GEOMETRY = ["atomic_numbers", "frac_coords", "a", "b", "c", "alpha", "beta", "gamma"]
SAME = 0.01  # eV/atom, between two calculations of one material by the same functional
UNDERCUT = 0.02  # eV/atom
LEAST_SHARE = 1e-6  # of a mixture
MIN_SHARED, MAX_DIFFERENT = 10, 0.1  # materials to judge by, and the share of those that may differ


class TableError(ValueError):
    """The rows make no hull table."""


def read_energies(
    sources: Iterable[Path],
    needed: Iterable[str],
    scales: Mapping[str, str] | None = None,
    legacy_column: str | None = None,
    log: Path | None = None,
    leave_out: Iterable[str] = (),
) -> pd.DataFrame:
    """Return the rows with energies on the scale of 2020, and their group.

    Args:
        sources: parquet files; a row's group is its `dataset`, or its `source` without that.
        needed: groups that have to be there.
        scales: of `adit_plugins.hull.scales.SCALES`, by group, for groups that need bringing.
        legacy_column: of formation energies with the legacy corrections, for rows without others.
        log: JSON lines of the shifts, made or continued; they take some 10 ms a crystal.
        leave_out: groups that are read over.

    Returns:
        Columns material_id, formula (flat, as the table has it), formation_energy_per_atom and
        energy_above_hull (eV/atom; the latter NaN where it is not known), group, and legacy: the
        energy is of that column.

    Raises:
        TableError: a file or a group is not there, or a scale is unknown.
    """
    import pandas as pd

    scales, leave_out = dict(scales or {}), set(leave_out)
    if wrong := sorted(set(scales.values()) - set(SCALES)):
        raise TableError(f"unknown scale '{wrong[0]}'. Known: {', '.join(SCALES)}.")
    tables = [_read(source, legacy_column) for source in sources]
    groups = {group for table in tables for group in table.group.unique()}
    if unknown := {*needed, *scales} - groups:
        known = ", ".join(sorted(groups))
        raise TableError(f"no rows of {', '.join(sorted(unknown))}. Known: {known}.")
    shifts = Shifts(log)
    tables = [_brought(table[~table.group.isin(leave_out)], scales, shifts) for table in tables]
    rows = pd.concat(tables, ignore_index=True)
    flat = {formula: flat_formula(formula) for formula in rows.formula.unique()}
    return rows.assign(formula=rows.formula.map(flat))


def _read(source: Path, legacy_column: str | None) -> pd.DataFrame:
    """The rows with a formation energy of any scale; `legacy` where it is of that column."""
    import pyarrow.parquet as pq

    names: list[str] = []
    with contextlib.suppress(OSError, ValueError):  # read_columns says so
        names = pq.read_schema(source).names
    group = "dataset" if "dataset" in names else "source"
    wanted = [name for name in (ABOVE_HULL, legacy_column, *GEOMETRY) if name in names]
    rows = read_columns(source, [*COLUMNS, group, *wanted]).rename(columns={group: "group"})
    rows["legacy"] = rows[ENERGY].isna()
    rows[ENERGY] = rows[ENERGY].astype(float)  # 32-bit numbers are no help
    if legacy_column in names:
        rows[ENERGY] = rows[ENERGY].fillna(rows[legacy_column].astype(float))
    return rows.dropna(subset=COLUMNS)


def _brought(rows: pd.DataFrame, scales: Mapping[str, str], shifts: Shifts) -> pd.DataFrame:
    """The same rows on the scale of 2020; of those brought there, the hull was another."""
    scale = rows.group.map(scales).where(~rows.legacy, LEGACY)
    rows = rows.assign(**{ABOVE_HULL: rows.get(ABOVE_HULL, np.nan)})
    moved = scale.notna()
    if moved.any():
        rows.loc[moved, ENERGY] += shifts.of(rows[moved].assign(scale=scale[moved]))
        rows.loc[moved, ABOVE_HULL] = np.nan
    return rows[[*COLUMNS, ABOVE_HULL, "group", "legacy"]].dropna(subset=[ENERGY])


class Shifts:
    """What brings each row to the scale of 2020, kept in a log."""

    def __init__(self, log: Path | None) -> None:
        self.log = log
        self.known: dict[str, float | None] = {}
        if log is not None and log.exists():
            text = log.read_text("utf-8")
            whole = text[: text.rfind("\n") + 1]  # a kill may leave half a line
            if whole != text:
                with replacing(log) as temporary:
                    temporary.write_text(whole, "utf-8")
            lines = [json.loads(line) for line in whole.splitlines()]
            self.known = {line["id"]: line["shift"] for line in lines}

    def of(self, rows: pd.DataFrame, scale: str | None = None) -> list[float]:
        """Return the shifts, eV/atom; NaN where pymatgen has no correction.

        Args:
            rows: material_id, group and geometry, and the `scale` of each.
            scale: of all of them, instead.
        """
        with contextlib.ExitStack() as stack:
            file = (
                None if self.log is None else stack.enter_context(self.log.open("a", buffering=1))
            )
            found = []
            for row in rows.itertuples():
                name = f"{row.group}/{row.material_id}"
                if name not in self.known:
                    self.known[name] = _shift(row, scale or str(row.scale))
                    if file is not None:
                        file.write(json.dumps({"id": name, "shift": self.known[name]}) + "\n")
                shift = self.known[name]
                found.append(np.nan if shift is None else shift)
        return found


def _shift(row: Any, scale: str) -> float | None:
    try:
        return shift_to_mp2020(row_structure(row), scale)
    except ConventionError:
        return None


def row_structure(row: Any) -> Structure:
    """Return the crystal of a row: atomic_numbers, frac_coords, a ... gamma."""
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as PymatgenStructure

    if not all(hasattr(row, name) for name in GEOMETRY):
        raise TableError(f"{row.material_id}: its corrections need {', '.join(GEOMETRY)}")
    lattice = Lattice.from_parameters(*(float(getattr(row, name)) for name in GEOMETRY[2:]))
    frac_coords: Any = np.asarray(row.frac_coords).reshape(-1, 3)
    return PymatgenStructure(lattice, list(row.atomic_numbers), frac_coords)


def lower_envelope(energies: Mapping[str, float]) -> dict[str, float]:
    """Return the hull of these phases and the elements at their own formulas, eV/atom.

    What lies above the others' hull comes down to it, so elements and what lies above them are 0.
    """
    whole = _bare(energies)
    # By chemical system, since the hull of each is made once.
    return {
        f: whole.energy_above_hull(f, 0.0).hull_energy_per_atom
        for f in sorted(energies, key=_system_of)
    }


def undercutting(
    energies: Mapping[str, float], fixed: Mapping[str, float], suspects: Iterable[str]
) -> set[str]:
    """Return the suspects whose mixtures lie below the release's own hull by more than 20 meV/atom.

    The release's hull is that of all its phases, so a phase of the same database that undercuts it
    was computed or corrected otherwise.

    Args:
        energies: formation energies of all phases by formula, eV/atom.
        fixed: the release's hull by formula.
        suspects: formulas of the phases that may be wrong.
    """
    left, dropped, suspects = dict(energies), set[str](), set(suspects)
    lowered = sorted(fixed, key=_system_of)
    while True:
        hull, systems = _bare(left), _by_system(left)
        lowered = [
            f
            for f in lowered
            if fixed[f] - hull.energy_above_hull(f, 0.0).hull_energy_per_atom > UNDERCUT
        ]
        mixtures = {f: suspects & _mixture(f, left, systems) for f in lowered}
        found = {part for parts in mixtures.values() for part in parts}
        if not found:
            return dropped
        dropped |= found
        left = {f: energy for f, energy in left.items() if f not in found}
        lowered = [f for f in lowered if mixtures[f]]  # nothing else is going to rise


def _by_system(formulas: Iterable[str]) -> dict[frozenset[str], list[str]]:
    systems: dict[frozenset[str], list[str]] = {}
    for formula in formulas:
        systems.setdefault(frozenset(_system_of(formula)), []).append(formula)
    return systems


def _bare(energies: Mapping[str, float]) -> Hull:
    from pymatgen.core import Element

    return Hull(energies, dict.fromkeys((element.symbol for element in Element), 0.0))


def _system_of(formula: str) -> list[str]:
    return sorted(set(re.findall("[A-Z][a-z]?", formula)))


def _mixture(
    formula: str, energies: Mapping[str, float], systems: Mapping[frozenset[str], list[str]]
) -> set[str]:
    """The compounds whose mixture is the hull at a formula."""
    from scipy.optimize import linprog

    target = atomic_fractions(formula)
    sizes = range(1, len(target) + 1)
    inside = [frozenset(part) for size in sizes for part in combinations(target, size)]
    names = [name for part in inside for name in systems.get(part, ())]
    parts = [atomic_fractions(name) for name in names] + [{symbol: 1.0} for symbol in target]
    costs = [energies[name] for name in names] + [0.0] * len(target)
    amounts = np.array([[part.get(symbol, 0.0) for part in parts] for symbol in target])
    found = linprog(costs, A_eq=amounts, b_eq=list(target.values()), bounds=(0, None))
    return {name for name, x in zip(names, found.x, strict=False) if x > LEAST_SHARE}


def release_hull(rows: pd.DataFrame, releases: Sequence[str]) -> dict[str, float]:
    """Return formation energy minus energy above hull by formula; the first named release wins."""
    energies: dict[str, float] = {}
    rows = rows[rows[ABOVE_HULL].notna()]
    hull_energy = rows[ENERGY] - rows[ABOVE_HULL]
    for release in reversed(releases):
        inside = rows.group == release
        energies |= hull_energy[inside].groupby(rows.formula[inside]).min().to_dict()
    return energies


def check_one_scale(rows: pd.DataFrame, releases: Sequence[str]) -> None:
    """Compare each group with those before it, the releases first.

    Raises:
        TableError: formation energies of the same materials differ.
    """
    import pandas as pd

    known = pd.Series(dtype=float)
    others = [name for name in rows.group.unique() if name not in releases]
    for name in (*releases, *others):
        group = rows[rows.group == name].groupby("material_id").formation_energy_per_atom.min()
        shared = group.index.intersection(known.index)
        differ = float(((group[shared] - known[shared]).abs() > SAME).mean()) if len(shared) else 0
        if len(shared) >= MIN_SHARED and differ > MAX_DIFFERENT:
            raise TableError(
                f"{differ:.0%} of {len(shared)} formation energies of '{name}' differ by more than "
                f"{SAME * 1000:g} meV/atom from those of the same materials: another functional or "
                f"release. --leave-out {name}"
            )
        known = pd.concat([known, group[~group.index.isin(known.index)]])


def flat_formula(formula: str) -> str:
    """Write a formula without brackets, as the table has it."""
    from pymatgen.core import Composition

    amounts = Composition(formula).get_el_amt_dict()
    return "".join(f"{symbol}{n:g}" if n != 1 else symbol for symbol, n in amounts.items())


def read_columns(source: Path, columns: list[str]) -> pd.DataFrame:
    """Read columns of a parquet file.

    Raises:
        TableError: it is none, or lacks one.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        return pq.read_table(source, columns=columns).to_pandas()
    except (ArrowException, OSError, ValueError) as error:
        needed = ", ".join(columns)
        raise TableError(
            f"'{source}' is no parquet file with the columns {needed}: {error}"
        ) from error
