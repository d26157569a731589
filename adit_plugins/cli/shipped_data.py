"""Build the tables of `adit_plugins/data` from a user's files.

Run as `python -m adit_plugins.cli.shipped_data`.

Only derived numbers are written, never structures: hull energies by formula, and fingerprints.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from adit_model.outputs import replacing

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

CRYSTAL_COLUMNS = ["formula", "num_atoms", "atomic_numbers", "frac_coords", "split"]
CELL_COLUMNS = ["a", "b", "c", "alpha", "beta", "gamma"]
TOLD = 0.001  # eV/atom
NOISES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)  # angstrom


@click.group()
def main() -> None:
    """Build the shipped tables, or say how well they agree with what they stand for."""


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def latents(data: tuple[Path, ...], out: Path) -> None:
    """Write the map of the release's latent space from prepared DATA, one file of each kind."""
    from adit_model import ADiT
    from adit_plugins.metrics.latent_map import make_map

    content = make_map(ADiT.from_pretrained(), data)
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    click.echo(f"{out.stat().st_size} bytes: {out}")


@main.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--release", "releases", multiple=True, required=True, metavar="GROUP")
@click.option("--leave-out", multiple=True, metavar="GROUP")
@click.option(
    "--scale",
    "scales",
    multiple=True,
    metavar="GROUP=SCALE",
    help="raw or legacy: what corrections the formation energies of this group have; those of 2020 "
    "are put in their place.",
)
@click.option(
    "--legacy-column",
    metavar="NAME",
    help="Of formation energies with the legacy corrections, for rows that have no others.",
)
@click.option(
    "--log",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON lines of what the corrections change, made or continued.",
)
def hull(
    sources: tuple[Path, ...],
    out: Path,
    releases: tuple[str, ...],
    leave_out: tuple[str, ...],
    scales: tuple[str, ...],
    legacy_column: str | None,
    log: Path | None,
) -> None:
    """Write formula and hull energy per atom from parquet SOURCES of computed crystals.

    Rows are grouped by their column dataset or source. Those of each --release, of which the first
    named wins where two disagree, fix the hull at their formula: formation energy minus energy
    above hull. Rows of other groups are phases at their formation energy; their energies above hull
    may be of another hull. The lower convex envelope of all of them is written. A group whose
    formation energies are not those of the same materials elsewhere is of another functional or
    release, and has to be left out.
    """
    from adit_plugins.hull import building
    from adit_plugins.hull.table import TABLE_HEADER

    by_group = dict(scale.rpartition("=")[::2] for scale in scales)
    try:
        rows = building.read_energies(
            sources, {*releases, *leave_out}, by_group, legacy_column, log, leave_out
        )
        building.check_one_scale(rows, releases)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    fixed = building.release_hull(rows, releases)
    others = rows[~rows.group.isin(releases)]
    today = others[~others.legacy].groupby("formula").formation_energy_per_atom.min().to_dict()
    today |= fixed
    old = others[others.legacy & ~others.formula.isin(today.keys())]
    known = today | old.groupby("formula").formation_energy_per_atom.min().to_dict()
    if len(old):
        wrong = building.undercutting(known, fixed, old.formula)
        known = {formula: energy for formula, energy in known.items() if formula not in wrong}
        click.echo(f"{len(wrong)} formulas of {legacy_column} undercut the releases: left out")
    envelope = building.lower_envelope(known)
    lowered = sum(energy - envelope[formula] > TOLD for formula, energy in fixed.items())
    # Adding 0 makes 0 of -0.
    rounded = {formula: round(envelope[formula], 4) + 0.0 for formula in sorted(envelope)}
    lines = [TABLE_HEADER, *(f"{formula},{energy:.4f}" for formula, energy in rounded.items())]
    # mtime 0: the same source gives the same bytes.
    with replacing(out) as temporary:
        temporary.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0))
    click.echo(f"{len(envelope)} formulas, {out.stat().st_size} bytes: {out}")
    click.echo(
        f"{len(fixed)} of the releases, {lowered} of them lowered by more than {TOLD * 1000:g} "
        "meV/atom"
    )


def _of_a_training_set(command: Callable[..., None]) -> Callable[..., None]:
    """Add what says which crystals of a table are the training set, and where to write."""
    for option in (
        click.option("--max-energy-above-hull", default=0.1, show_default=True, help="eV/atom"),
        click.option("--max-atoms", default=20, show_default=True),
        click.option("--split", default="train", show_default=True),
        click.argument("out", type=click.Path(dir_okay=False, path_type=Path)),
        click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    ):
        command = option(command)
    return command


@main.group()
def fingerprints() -> None:
    """Write fingerprints of a training set."""


@fingerprints.command()
@_of_a_training_set
def crystals(
    source: Path, out: Path, split: str, max_atoms: int, max_energy_above_hull: float
) -> None:
    """From a parquet SOURCE of crystals with the columns of `adit data prepare`."""
    from adit_plugins.matching.fingerprints import Fingerprints

    chosen = _training_set(source, split, max_atoms, max_energy_above_hull)
    with click.progressbar(_structures(chosen), length=len(chosen), file=sys.stderr) as bar:
        known = Fingerprints.build(bar)
    known.save(out)
    click.echo(f"{len(known)} crystals, {out.stat().st_size} bytes: {out}")


@main.command()
@_of_a_training_set
def distributions(
    source: Path, out: Path, split: str, max_atoms: int, max_energy_above_hull: float
) -> None:
    """Write densities, sizes, elements and space groups of a training set (a parquet SOURCE)."""
    from adit_plugins.metrics.crystals import judge_crystal
    from adit_plugins.metrics.distributions import summarise_training_set
    from adit_plugins.structures.samples import to_sample

    chosen = _training_set(source, split, max_atoms, max_energy_above_hull)
    with click.progressbar(_structures(chosen), length=len(chosen), file=sys.stderr) as bar:
        summary = summarise_training_set([judge_crystal(to_sample(each)) for each in bar])
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(summary) + "\n", encoding="utf-8")
    click.echo(f"{summary['num_crystals']} crystals, {out.stat().st_size} bytes: {out}")


@fingerprints.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def molecules(sources: tuple[Path, ...], out: Path) -> None:
    """From the SMILES column of CSV SOURCES, in this order; rows 0 and 10 of every 20 are left out.

    (Those are the test and the validation set.)
    """
    from adit_plugins.matching.fingerprints import Fingerprints

    rows = itertools.chain.from_iterable(_smiles(source) for source in sources)
    known = Fingerprints.build(smiles for i, smiles in enumerate(rows) if i % 20 not in (0, 10))
    known.save(out)
    click.echo(f"{len(known)} molecules, {out.stat().st_size} bytes: {out}")


@main.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--max-atoms", default=20, show_default=True)
@click.option("--num-disturbed", default=1500, show_default=True)
def agreement(source: Path, max_atoms: int, num_disturbed: int) -> None:
    """Print how often crystal fingerprints and StructureMatcher agree, on three kinds of pairs.

    Pairs of equal formula in SOURCE; crystals against themselves with noise and strain, as a
    generator would return them; and with their species shuffled over the sites.
    """
    from adit_plugins.matching.fingerprints import crystal_invariants, invariants_match
    from adit_plugins.matching.matcher import is_match

    table = _read(source, [*CRYSTAL_COLUMNS, *CELL_COLUMNS])
    table = table[table.num_atoms <= max_atoms]
    counts: Counter[tuple[str, bool, bool]] = Counter()
    for name, first, second in _pairs(table, num_disturbed):
        says = invariants_match(crystal_invariants(first), crystal_invariants(second))
        counts[name, is_match(first, second), says] += 1
    click.echo("pairs                n  same  agreement  recall  false matches")
    for name in dict.fromkeys(name for name, _, _ in counts):
        hit, miss = counts[name, True, True], counts[name, True, False]
        wrong, right = counts[name, False, True], counts[name, False, False]
        total = hit + miss + wrong + right
        click.echo(
            f"{name:16} {total:5d} {hit + miss:5d}      {(hit + right) / total:5.3f}   "
            f"{hit / max(hit + miss, 1):5.3f}          {wrong / max(wrong + right, 1):5.3f}"
        )


def _training_set(
    source: Path, split: str, max_atoms: int, max_energy_above_hull: float
) -> pd.DataFrame:
    table = _read(source, [*CRYSTAL_COLUMNS, *CELL_COLUMNS, "energy_above_hull"])
    return table[
        (table.split == split)
        & (table.num_atoms <= max_atoms)
        & (table.energy_above_hull <= max_energy_above_hull)
    ]


def _pairs(table: pd.DataFrame, num_disturbed: int) -> Iterator[tuple[str, Structure, Structure]]:
    """Yield named pairs of crystals of equal formula, the same ones every time."""
    from pymatgen.core import Structure as PymatgenStructure

    for _, group in table.groupby("formula"):
        if len(group) > 1:
            for first, second in itertools.combinations(list(_structures(group)), 2):
                yield "equal formula", first, second
    rng = np.random.default_rng(0)
    for structure in _structures(table.sample(min(num_disturbed, len(table)), random_state=1)):
        noise = float(rng.choice(NOISES))
        strained = structure.copy()
        strained.apply_strain(rng.normal(size=3) * min(noise, 0.1))
        moved = PymatgenStructure(
            strained.lattice,
            strained.species,
            strained.cart_coords + noise * rng.normal(size=(len(strained), 3)),
            coords_are_cartesian=True,
        )
        yield f"noise {noise} A", structure, moved
        species = [structure.species[i] for i in rng.permutation(len(structure))]
        if len(set(species)) > 1:
            shuffled = PymatgenStructure(structure.lattice, species, structure.frac_coords)
            yield "species shuffled", structure, shuffled


def _read(source: Path, columns: list[str]) -> pd.DataFrame:
    from adit_plugins.hull.building import TableError, read_columns

    try:
        return read_columns(source, columns)
    except TableError as error:
        raise click.ClickException(str(error)) from error


def _structures(table: pd.DataFrame) -> Iterator[Structure]:
    from adit_plugins.hull.building import row_structure

    return (row_structure(row) for row in table.itertuples())


def _smiles(source: Path) -> Iterator[str]:
    csv.field_size_limit(10**9)
    with source.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "SMILES" not in (reader.fieldnames or []):
            raise click.ClickException(f"'{source}' has no column SMILES.")
        yield from (row["SMILES"] for row in reader)


if __name__ == "__main__":
    main()
