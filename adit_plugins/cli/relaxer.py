"""`adit relaxer`: what is known of a potential, measured."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from adit_plugins.cli.inputs import check_there, crystals_of
from adit_plugins.cli.progress import progress


@click.group()
def relaxer() -> None:
    """Measure a potential."""


@relaxer.command("calibrate")
@click.argument("name")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Crystals at their DFT geometry with formation_energy_per_atom (eV/atom, on the Materials "
    "Project's scale): a table, or any file of structures with that in their info.",
)
@click.option(
    "--num", type=click.IntRange(min=1), default=5000, show_default=True, help="Crystals, drawn."
)
@click.option("--max-atoms", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--convention",
    type=click.Choice(["mp2020", "mp-raw"]),
    help="Of the energies, where the potential does not say it: with the Materials Project's "
    "corrections, or raw energies of its settings.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help="Keep every energy here at once; a second run goes on from there.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="[default: the user's own, which every command uses from then on]",
)
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [default: one a core]")
def calibrate(
    name: str,
    data: Path,
    num: int,
    max_atoms: int,
    seed: int,
    convention: str | None,
    log: Path | None,
    out: Path | None,
    workers: int | None,
) -> None:
    """Fit the elements of the potential NAME, so that its formation energies are right in the mean.

    Energies are computed at the geometries given. Of a table with a column `split` only `train` is
    fitted, and no formula that another split has. Every energy above hull of this potential then
    has the corrections; the one without them stands beside it as `raw_energy_above_hull`.
    """
    from adit_plugins.hull import measuring
    from adit_plugins.hull.references import own_file, write
    from adit_plugins.relax.run import find_relaxer

    check_there(data)
    find_relaxer(name)
    target = out or own_file()
    if target is None:
        raise ValueError("No home folder to keep corrections in; say --out FILE.json.")
    if target.suffix != ".json":
        raise ValueError(f"--out {target} must end in .json.")
    warnings.filterwarnings("ignore", message="No Pauling electronegativity")  # of noble gases
    known = list(measuring.known_of(crystals_of(data)))
    chosen = measuring.choose(known, num, max_atoms, seed)
    about = f"{data.name}: {len(chosen)} crystals of at most {max_atoms} atoms, seed {seed}"
    with progress() as report:
        made, reasons = measuring.measure(
            chosen, name, convention, log, workers,
            lambda done, total: report("energies", done, total), about,
        )  # fmt: skip
    write(made, target)
    for reason, number in reasons.most_common(10):
        click.echo(f"{number:6d} left out: {reason}")
    click.echo(
        f"{made.potential}: {len(made.corrections)} elements fitted on {made.num_rows} crystals of "
        f"{made.num_formulas} formulas."
    )
    for when in ("before", "after"):
        errors = made.held_out[when]
        click.echo(
            f"{when:>8}: bias {errors['bias_meV']:+.1f}, mean absolute error "
            f"{errors['mae_meV']:.1f}, median {errors['median_absolute_meV']:.1f} meV/atom"
            + (" (on formulas that the fit has not seen)" if when == "after" else "")
        )
    click.echo(f"Written to {target}.")
