"""`adit submit`: the files that benchmarks take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from adit_model.outputs import check_writable
from adit_plugins.cli.inputs import check_there
from adit_plugins.cli.options import (
    fmax_option,
    keep_constraints_option,
    max_steps_option,
    sampling_options,
)
from adit_plugins.cli.progress import progress
from adit_plugins.cli.submit_matbench import matbench_discovery
from adit_plugins.cli.submit_steps import initial_structures, relaxed, say_unreadable
from adit_plugins.relax.limits import TIME_LIMIT_SECONDS

if TYPE_CHECKING:
    from ase import Atoms


LEADERBOARD = 2500  # structures of LeMat-GenBench


@click.group()
def submit() -> None:
    """Write what a benchmark asks of a submission."""


submit.add_command(matbench_discovery)


@submit.command("lemat-genbench")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR")
@click.option(
    "--num",
    type=click.IntRange(min=1),
    default=LEADERBOARD,
    show_default=True,
    help="Structures; the leaderboard takes 2500.",
)
@click.option("--relax", "relaxer", metavar="NAME", help="Relax them first, e.g. with chgnet.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [default: one a core]")
@max_steps_option
@keep_constraints_option
@fmax_option
@sampling_options
@click.pass_context
def lemat_genbench(
    ctx: click.Context,
    file: Path | None,
    out: Path,
    num: int,
    relaxer: str | None,
    workers: int | None,
    max_steps: int,
    keep_constraints: bool,
    fmax: float,
    **recipe: Any,
) -> None:
    """Write crystals as LeMat-GenBench reads them, with what its form asks for.

    They are generated, or read from FILE. Nothing is filtered: the leaderboard divides by all.
    What cannot be read, or is no crystal, has no row and is named in the form.
    """
    from adit_plugins.submissions import lemat_genbench as lemat
    from adit_plugins.submissions.shards import RelaxationSettings

    check_there(file)
    check_writable(out)
    making = [name for name in recipe
              if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]  # fmt: skip
    if file is not None and making:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in making)
        raise click.UsageError(f"{options} would have no effect: {file} is submitted as it is.")
    unreadable: dict[str, str] = {}
    if keep_constraints and relaxer is None:
        raise click.UsageError("--keep-constraints needs --relax.")
    if file is None:
        structures, figures = _generated(num, recipe)
        relaxation = None
    else:
        structures, unreadable = _crystals(file)
        figures = dict(lemat.figures_of(structures))
        relaxation = lemat.relaxation_of(structures)
    if relaxer is not None:
        settings = RelaxationSettings(relaxer, fmax, max_steps, keep_constraints)
        records = relaxed(ctx, structures, out, settings, 1, None, workers, TIME_LIMIT_SECONDS)
        assert records is not None  # only one shard of several gives none
        structures = lemat.with_relaxed(structures, records)
        relaxation = lemat.relaxation_settings(settings, records)
    paths = lemat.write(structures, out, num, relaxation, figures, unreadable)
    say_unreadable(unreadable, num)
    for path in paths:
        click.echo(f"  {path}")


def _generated(num: int, recipe: dict[str, Any]) -> tuple[dict[str, Atoms], dict[str, Any]]:
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.generation.recipe import check_device
    from adit_plugins.submissions.lemat_genbench import generate

    check_device(recipe["device"])
    with progress() as report:
        return generate(
            ADiTGenerator(kind="crystal", **recipe),
            num,
            lambda done, total: report("crystals", done, total or num),
        )


def _crystals(file: Path) -> tuple[dict[str, Atoms], dict[str, str]]:
    """Return the crystals by id, and why others are none.

    Raises:
        ValueError: there is no crystal.
    """
    structures, bad = initial_structures(file)
    crystals = {name: atoms for name, atoms in structures.items() if atoms.pbc.all() and len(atoms)}
    bad |= {name: "is no crystal" for name in structures if name not in crystals}
    if not crystals:
        name, reason = next(iter(bad.items()))
        raise ValueError(f"{file} holds no crystals, which LeMat-GenBench takes: {name} {reason}.")
    return crystals, bad
