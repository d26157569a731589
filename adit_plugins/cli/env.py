"""`adit env`: Python environments for potentials that cannot live in ours."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def env() -> None:
    """Environments of their own for potentials whose packages do not fit beside ours."""


@env.command("create")
@click.argument("name")
@click.argument("requirements", nargs=-1, metavar="[PACKAGE==VERSION]...")
@click.option(
    "--python",
    type=click.Path(path_type=Path),
    help="Interpreter that it is made with. [default: this one]",
)
@click.option(
    "--torch-index-url",
    metavar="URL",
    help="Take torch from this index, e.g. https://download.pytorch.org/whl/cpu for a CPU build.",
)
def create(
    name: str, requirements: tuple[str, ...], python: Path | None, torch_index_url: str | None
) -> None:
    """Make an environment with pip: sevennet or tblite as tested, or NAME of packages of yours.

    `adit env create sevennet` makes `--relaxer sevennet` and `sevennet:l3i5` usable, `tblite` the
    relaxer of that name. Of your own: `adit env create orb orb-models==0.7.0`, then
    `--relaxer env:orb:module:function` with a function that returns an ASE calculator.
    """
    from adit_plugins.relax import environments

    made = environments.create(
        name, requirements, None if python is None else str(python), torch_index_url, click.echo
    )
    click.echo(f"{made.name}: {made.versions}, Python {made.python}, in {made.folder}")


@env.command("list")
def list_() -> None:
    """Show the environments that are there, and the recipes for others."""
    from adit_plugins.relax.environments import RECIPES, environments

    there = environments()
    for each in there:
        state = f"{each.versions}, Python {each.python}" if each.finished else "never finished"
        click.echo(f"{each.name:12}{state}, in {each.folder}")
    for name in sorted(RECIPES.keys() - {each.name for each in there}):
        click.echo(f"{name:12}not made: adit env create {name}    {RECIPES[name].about}")


@env.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Remove an environment."""
    from adit_plugins.relax import environments

    click.echo(f"Removed {environments.remove(name)}")
