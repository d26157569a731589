"""`adit evaluate`: the metrics of the field for files of any generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_model.outputs import check_writable, replacing
from adit_plugins.cli.effects import check_evaluate, given, refuse
from adit_plugins.cli.options import max_steps_option
from adit_plugins.cli.progress import progress

if TYPE_CHECKING:
    from adit_plugins.metrics.evaluation import SetMetrics


KINDS = ("crystals", "molecules")


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--reference",
    default="crystal",
    show_default=True,
    metavar="FILE",
    help="Known crystals for novelty: a file of structures, of prepared arrays or of fingerprints; "
    "'crystal' is the shipped training set.",
)
@click.option(
    "--molecule-reference",
    default="molecule",
    show_default=True,
    metavar="FILE",
    help="Known molecules: SMILES, or fingerprints; 'molecule' is the shipped QM9 training set.",
)
@click.option(
    "--targets",
    metavar="FILE",
    help="Crystals to be found again: match rate, RMSE and METRe.",
)
@click.option(
    "--relax",
    metavar="NAME",
    help="Relax crystals with this potential (chgnet, ...): energies above hull, S.U.N. rates.",
)
@max_steps_option
@click.option("--fast", is_flag=True, help="Leave out PoseBusters' energy check (50 conformers).")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [default: one a core]")
@click.option("--json", "json_file", metavar="FILE", help="Everything, a row for each structure.")
@click.option("--markdown", metavar="FILE", help="The tables, with what each rate means.")
@click.option("--plots", metavar="FOLDER", help="Histograms, elements and PoseBusters' checks.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    files: tuple[str, ...],
    json_file: str | None,
    markdown: str | None,
    plots: str | None,
    **options: Any,
) -> None:
    """Score sets of crystals or molecules from any generator, side by side.

    FILE is extxyz, CIF, SDF, POSCAR, an ASE database, pymatgen JSON, a table with a column of
    structures, eval_gen.pt of CDVAE and DiffCSP, or a folder or archive of such files. What cannot
    be read counts as invalid.
    """
    check_outputs(json_file, markdown, plots)
    known = (options[name] for name in ("targets", "reference", "molecule_reference"))
    check_distinct((json_file, markdown), (*files, *known))
    if options["relax"] is None:
        refuse(given(ctx, ["max_steps"]), "nothing is relaxed; add --relax NAME")
    else:
        from adit_plugins.cli.discover import check_relaxer

        check_relaxer(options["relax"])
    from adit_plugins.metrics.evaluation import Protocol, evaluate_set
    from adit_plugins.metrics.sets import distinct_names, read_set
    from adit_plugins.processes import available_cores

    protocol = Protocol(
        reference=options["reference"],
        molecule_reference=options["molecule_reference"],
        targets=options["targets"],
        relaxer=options["relax"],
        max_steps=options["max_steps"],
        fast=options["fast"],
        # A number: only processes have a time limit, also for few structures.
        workers=available_cores() if options["workers"] is None else options["workers"],
    )
    with progress() as report:
        read = [read_set(path, report) for path in files]
        distinct_names(read)
        numbers = (sum(len(getattr(each, kind)) for each in read) for kind in KINDS)
        check_evaluate(ctx, *numbers)
        sets = [evaluate_set(each, protocol, report) for each in read]
    for each in sets:
        if not any(_was_read(each)):
            raise ValueError(f"Nothing of {each.path} can be read: {each.notes[0]}.")
    write_report(sets, {"files": list(files), **vars(protocol)}, json_file, markdown, plots)


def check_outputs(*paths: str | None) -> None:
    """Find an output that cannot be written before the work, not after it.

    Raises:
        ValueError: its folder is missing.
    """
    for path in paths:
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ValueError(f"Cannot write {path}: there is no folder {Path(path).parent}.")
        if path is not None:
            check_writable(Path(path))
    for path in paths[:-1]:
        if path is not None and Path(path).is_dir():
            raise ValueError(f"Cannot write {path}: it is a folder.")
    if paths[-1] is not None and Path(paths[-1]).is_file():
        raise ValueError(f"Cannot write plots into {paths[-1]}: it is a file. Choose a folder.")


def _was_read(found: SetMetrics) -> Iterator[bool]:
    """Whether each entry of a set could be read."""
    for part in (found.crystals, found.molecules):
        yield from (bool(row.get("num_atoms")) for row in (part.rows if part else ()))


def check_distinct(outputs: Sequence[str | None], inputs: Sequence[str | None]) -> None:
    """Refuse to write over what is read, or one report over another.

    Raises:
        ValueError: two of the paths are one file.
    """
    taken = {Path(path).resolve() for path in inputs if path is not None}
    for path in outputs:
        if path is None:
            continue
        if Path(path).resolve() in taken:
            raise ValueError(f"{path} is read, or written already. Choose another file.")
        taken.add(Path(path).resolve())


def write_report(
    sets: list[SetMetrics],
    recipe: dict[str, Any],
    json_file: str | None,
    markdown: str | None,
    plots: str | None,
) -> None:
    """Print the tables and write what was asked for."""
    from rich.console import Console

    from adit_plugins.metrics.report import as_json, as_markdown, print_report

    print_report(Console(), sets)
    texts = ((json_file, lambda: as_json(sets, recipe)), (markdown, lambda: as_markdown(sets)))
    with ExitStack() as stack:  # all of them or none
        for file, make in texts:
            if file is not None:
                temporary = stack.enter_context(replacing(Path(file)))
                temporary.write_text(make(), encoding="utf-8")
        if plots is not None:
            from adit_plugins.metrics.plots import write_plots

            write_plots(sets, Path(plots))
