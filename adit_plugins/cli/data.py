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
def prepare(
    names: tuple[str, ...], out: Path, source: Path | None, labels: tuple[str, ...]
) -> None:
    """Turn data sets into arrays that training loads in seconds.

    NAME is qm9 (from the package qm9pack), mp20 (downloaded once), crystals (your own table,
    folder of CIFs or other structures, with --source), or any that an installed plugin adds.
    """
    check_writable(out)
    from adit_plugins.datasets import prepare as prepare_data

    for path in prepare_data(list(names), out, source, labels):
        click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
