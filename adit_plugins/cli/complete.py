"""`adit complete`: fill a structure in around given atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.options import network_options, symbols

if TYPE_CHECKING:
    from ase import Atoms


def _whole_numbers(
    _ctx: click.Context, _option: click.Parameter, text: str | None
) -> list[int] | None:
    """Numbers between commas, or ranges such as 8-12."""
    if text is None:
        return None
    found: list[int] = []
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise click.BadParameter(f"{part!r} is no number or range, such as 8 or 8-12")
        found += range(int(first), int(last if dash else first) + 1)
    return found


@click.command()
@click.argument("file")
@click.option("--num", type=click.IntRange(min=1), default=8, show_default=True)
@click.option(
    "--out", required=True, metavar="FILE", help="As for adit generate; an old one is replaced."
)
@click.option("--format", "form", metavar="NAME", help="Of --out. [default: suffix]")
@click.option(
    "--index", type=click.IntRange(min=0), help="Which structure of FILE, where it holds several."
)
@click.option(
    "--fixed",
    callback=_whole_numbers,
    metavar="I,J-K",
    help="Atoms that are given, counted from 0. [default: all that --replace leaves]",
)
@click.option(
    "--replace", callback=symbols, metavar="A,B,..", help="Take these away and draw them anew."
)
@click.option("--add", metavar="FORMULA", help="Exactly these atoms are added, e.g. Li2O.")
@click.option(
    "--elements",
    callback=symbols,
    metavar="A,B,..",
    help="Only of these are atoms added. [default: any but those of --replace]",
)
@click.option(
    "--num-atoms",
    callback=_whole_numbers,
    metavar="N,M-K",
    help="In a completion, the given ones included; of several each draws one.",
)
@network_options
def complete(
    file: str,
    num: int,
    out: str,
    form: str | None,
    index: int | None,
    fixed: list[int] | None,
    replace: list[str] | None,
    add: str | None,
    elements: list[str] | None,
    num_atoms: list[int] | None,
    **recipe: Any,
) -> None:
    """Fill a structure in: the given atoms, and a crystal's cell, stay exactly where they are.

    Fill sites of a host (adit complete host.cif --add Li2), exchange elements (--replace Co), grow
    a molecule from a scaffold, or link fragments (adit complete fragments.xyz --num-atoms 18-22).
    """
    if add is not None and elements is not None:
        raise click.UsageError("--add says exactly what is added; leave out --elements.")
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.generation.recipe import check_device
    from adit_plugins.structures.samples import to_sample
    from adit_plugins.structures.writers import check_output, write_samples

    start = to_sample(_chosen(file, index))
    check_output(out, start.kind, form)
    check_device(recipe["device"])
    generator = ADiTGenerator(kind=start.kind, **recipe)  # type: ignore[arg-type]
    made = generator.complete(
        start, num, num_atoms=num_atoms, fixed=fixed, elements=add or elements, replace=replace
    )
    result = write_samples(made, out, form)
    if result.skipped:
        name, reason = result.skipped[0]
        click.echo(f"{len(result.skipped)} do not fit into {out}, the first, {name}: {reason}")
    click.echo(f"{result.written} completions in {out}.")


def _chosen(file: str, index: int | None) -> Atoms:
    from adit_plugins.structures.reading import read_structures

    structures = read_structures(file)
    if index is None and len(structures) > 1:
        raise click.UsageError(f"{file} holds {len(structures)} structures; choose one: --index I.")
    if index is not None and index >= len(structures):
        raise click.UsageError(f"--index must be 0..{len(structures) - 1} for {file}; got {index}.")
    return structures[index or 0]
