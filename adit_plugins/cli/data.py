"""`adit data`: prepare data sets for training."""

from __future__ import annotations

from pathlib import Path

import click

from adit_model.outputs import check_writable


@click.group()
def data() -> None:
    """Prepare data sets for training."""


@data.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("data"), show_default=True, metavar="DIR"
)
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="Your own file or folder instead of a download (one data set only).",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME[:UNIT]",
    help="A column of the source that a network can be told, e.g. bulk_modulus:GPa; NAME:class "
    "for classes; repeatable.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Make a folder of files, of N rows of the source each, larger than the memory if need be; "
    "the same command goes on where it was. Crystals only.",
)
@click.option(
    "--max",
    "limits",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Leave out crystals above it: num_atoms=64 (molecules, too), energy_above_hull=0.05 (in "
    "place of the set's own limits), or any column of numbers; repeatable.",
)
@click.option(
    "--distinct-splits",
    is_flag=True,
    help="Leave out crystals that equal (formula, StructureMatcher) one of the test split, and "
    "training crystals that equal one of the validation split.",
)
@click.pass_context
def prepare(
    ctx: click.Context,
    names: tuple[str, ...],
    out: Path,
    source: Path | None,
    labels: tuple[str, ...],
    shard_size: int | None,
    limits: tuple[str, ...],
    distinct_splits: bool,
) -> None:
    """Turn data sets into arrays that training loads in seconds.

    NAME is qm9 (from the package qm9pack), mp20, mpts52, perov5, carbon24, alexmp20, qmof or oc20
    (downloaded once), alexandria, lemat_bulk, omat24 or geom_drugs (with --source), crystals (your
    own table, folder of CIFs or other structures, with --source), molecules (your own, likewise),
    formulas (a table of formulas, for the prior, with --source), or any that an installed plugin
    adds. What is left out is told with its reason.
    """
    check_writable(out)
    highest = dict(map(_limit, limits))
    from adit_plugins.datasets import prepare as prepare_data

    def report(line: str) -> None:
        click.echo(line, err=True)

    try:
        made = prepare_data(
            list(names), out, source, labels, shard_size, report, highest, distinct_splits
        )
    except KeyboardInterrupt:
        kept = " Whole files are kept; the same command goes on." if shard_size else ""
        click.echo(f"Interrupted.{kept}", err=True)
        ctx.exit(130)
    for path in made:
        files = [each for each in (path, *path.rglob("*.safetensors")) if each.is_file()]
        size = sum(each.stat().st_size for each in files) / 1e6
        click.echo(
            f"{path}: {_held(path) if path.is_file() else f'{len(files)} files'}, {size:.1f} MB"
        )


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--compare-splits",
    is_flag=True,
    help="Count crystals that equal one of another split; minutes for ten thousands.",
)
def card(file: Path, compare_splits: bool) -> None:
    """Print what is in a prepared file: splits, sizes, elements, labels, as JSON."""
    import json

    from adit_model.data import PreparedData
    from adit_plugins.datasets.card import card_of

    click.echo(json.dumps(card_of(PreparedData.load(file), compare_splits), indent=1))


def _limit(text: str) -> tuple[str, float]:
    """A column and its highest value.

    Raises:
        click.BadParameter: it is not of that form.
    """
    name, _, value = text.partition("=")
    try:
        return name.strip().lower(), float(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not COLUMN=VALUE, such as num_atoms=64", param_hint="--max"
        ) from error


def _held(path: Path) -> str:
    """How many structures a prepared file has, in which splits."""
    from adit_model.data import SPLITS, PreparedData

    prepared = PreparedData.load(path)
    numbers = prepared.split.bincount(minlength=len(SPLITS)).tolist()
    splits = ", ".join(f"{number} {name}" for name, number in zip(SPLITS, numbers, strict=True))
    return f"{sum(numbers)} {prepared.kind}s ({splits})"
