"""`adit predict`: the crystal structures of a formula."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.effects import given, refuse
from adit_plugins.cli.finishing import no_interruption
from adit_plugins.cli.options import hull_option, network_options
from adit_plugins.cli.progress import progress
from adit_plugins.relax.limits import PREDICTION_FMAX, PREDICTION_STEPS

if TYPE_CHECKING:
    from adit_plugins.prediction import Prediction, Predictions, Search

ROWS = 15  # of the table
LEAST = ("g/cm3", "found", "atoms")  # what a narrow terminal goes without, the first first


@click.command()
@click.argument("formula", required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="For the table, the structures, CIFs, report.html and what --resume goes on from.",
)
@click.option(
    "--num",
    type=click.IntRange(min=1),
    help="Samples. [default: 200; with --minutes as many as fit]",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Sample and relax for so long; --relaxer comes on top.",
)
@click.option(
    "--chemical-system",
    metavar="A-B-..",
    help="In the place of FORMULA: any compositions of exactly these elements.",
)
@click.option(
    "--num-atoms",
    type=click.IntRange(min=1),
    multiple=True,
    help="In a cell; repeatable. [default: all multiples of the formula that fit]",
)
@click.option(
    "--relaxer",
    metavar="NAME",
    help="A second potential, such as chgnet, that relaxes the lowest further and ranks them.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="With --relaxer: how many distinct structures it takes.",
)
@click.option(
    "--prefilter",
    default="mace-adit",
    show_default=True,
    metavar="NAME",
    help="The potential that relaxes every sample.",
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Known structures, relaxed and ranked beside the samples: were they found, do they win?",
)
@click.option(
    "--seeds",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Crystals of other elements: with those of FORMULA in their places they take part.",
)
@hull_option
@click.option(
    "--ensemble",
    is_flag=True,
    help="Also vary the lowest structures, again and again, until nothing lower appears.",
)
@click.option(
    "--fmax",
    type=click.FloatRange(min=0, min_open=True),
    default=PREDICTION_FMAX,
    show_default=True,
    help="Force limit, eV/angstrom: tight, so that equal structures are seen to be equal.",
)
@click.option(
    "--max-steps",
    type=click.IntRange(min=0),
    default=PREDICTION_STEPS,
    show_default=True,
    help="Relaxation steps a structure; what has not converged by then is marked.",
)
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [default: one a core]")
@click.option("--resume", is_flag=True, help="Go on with the search in --out; --num may be larger.")
@click.option("--overwrite", is_flag=True, help="Replace the search in --out.")
@network_options
@click.pass_context
def predict(
    ctx: click.Context,
    formula: str | None,
    out: Path,
    num: int | None,
    minutes: float | None,
    chemical_system: str | None,
    num_atoms: tuple[int, ...],
    resume: bool,
    overwrite: bool,
    reference: Path | None,
    seeds: Path | None,
    **settings: Any,
) -> None:
    """Predict the crystal structures of FORMULA: sample, relax, group, rank, lowest first.

    Cells of every multiple of the formula that the checkpoint makes are looked in. Energies are
    those of the potential named in the table. Ctrl-C keeps what was finished, ranked; --resume
    goes on from there.
    """
    if (formula is None) == (chemical_system is None):
        raise click.UsageError("Give FORMULA or --chemical-system A-B, one of the two.")
    if settings["relaxer"] is None:
        refuse(given(ctx, ["keep"]), "it says how many --relaxer NAME takes; add it")
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.generation.recipe import check_device
    from adit_plugins.prediction.files import check_folder
    from adit_plugins.prediction.known import known_structures
    from adit_plugins.prediction.search import NUM, Search

    check_folder(out, resume, overwrite)
    check_device(settings["device"])
    own = ("relaxer", "keep", "prefilter", "fmax", "max_steps", "workers", "ensemble", "hull")
    recipe = {name: value for name, value in settings.items() if name not in own}
    generator = ADiTGenerator(formula=formula, chemical_system=chemical_system, **recipe)
    search = Search(
        generator,
        NUM if num is None and minutes is None else num,
        minutes,
        num_atoms or None,
        reference=known_structures(generator, reference, seeds),
        folder=out,
        **{name: settings[name] for name in own},
    )
    search.begin(resume)
    with progress() as report:
        search.run(report)
    finish(search, out)
    if search.stopped == "interrupted":
        ctx.exit(130)


def finish(search: Search, out: Path) -> None:
    """Write the files and print the table."""
    with no_interruption():
        found = search.predictions()
        if found:
            found.write(out)
    interrupted = search.stopped == "interrupted"
    if found:
        print_table(found)
        click.echo(f"Table, structures, CIFs and report.html in {out}/.")
    if interrupted:
        kept = "what was relaxed is ranked" if found else "nothing was relaxed yet"
        click.echo(f"Interrupted: {kept}; the same command with --resume goes on.", err=True)


def print_table(found: Predictions) -> None:
    """Print the best predictions and what is to be said of the search."""
    from rich.console import Console

    from adit_plugins.outputs import common_prefix, print_rows

    about = found.about
    several = len({each.formula for each in found}) > 1
    refined = {each.potential for each in found if each.refined}
    first = {each.potential for each in found if not each.refined}
    prefix = common_prefix([each.names[0] for each in found if not each.known_as])
    headings = {
        "#": "right",
        **({"formula": "left"} if several else {}),
        "E hull": "right", "dE": "right", "space group": "left",
        **dict.fromkeys(("atoms", "g/cm3", "found"), "right"),
        "id, or known as" if _any_known(found) else "id": "text",
    }  # fmt: skip
    rows = [
        dict(
            zip(
                headings,
                (str(rank), *([each.formula] if several else []), *_cells(each, prefix)),
                strict=True,
            )
        )
        for rank, each in enumerate(found[:ROWS], start=1)
    ]
    title = (
        f"{about.request}: {len(found)} distinct structures of {about.num_relaxed} relaxed samples"
    )
    console = Console()
    print_rows(console, title, headings, rows, LEAST)
    console.print(
        "E hull, dE (above the lowest of the formula): eV/atom by "
        + " first, then ".join(", ".join(sorted(each)) for each in (refined, first) if each)
        + ". Found: samples that ended in it. * not converged: an upper bound."
        + (f" Hull: {about.hull}." if about.hull else "")
        + (f" Ids begin with {prefix}" if prefix else ""),
        markup=False,
        highlight=False,
    )
    if len(found) > ROWS:
        console.print(f"... and {len(found) - ROWS} more in the files.")
    for note in found.notes:
        console.print(note, markup=False, highlight=False)


def _any_known(found: Predictions) -> bool:
    return any(each.known_as for each in found)


def _cells(each: Prediction, prefix: str) -> list[str]:
    hull = "-" if each.energy_above_hull is None else f"{each.energy_above_hull:.3f}"
    group = "-" if each.space_group is None else f"{each.space_group_symbol} ({each.space_group})"
    return [
        hull + ("" if each.converged else "*"),
        f"{each.energy_above_lowest:.3f}",
        group,
        str(len(each.structure)),
        f"{each.density:.2f}",
        str(each.num_found),
        ", ".join(each.known_as) or each.names[0].removeprefix(prefix),
    ]
