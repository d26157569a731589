"""`adit dft`: compute the best candidates of a campaign, or any crystals, by DFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_model.outputs import check_writable
from adit_plugins.cli.effects import check_dft
from adit_plugins.cli.inputs import check_there, crystals_of, say_constraints, say_left_out
from adit_plugins.cli.options import fmax_option, keep_constraints_option
from adit_plugins.cli.progress import progress

if TYPE_CHECKING:
    from ase import Atoms

    from adit_plugins.campaign.dft_stage import DftTask
    from adit_plugins.relax.results import RelaxResult

INPUTS = ("vasp", "espresso")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Candidates of the campaign, the best first; of a FILE, all are computed.",
)
@click.option(
    "--engine",
    default="gpaw",
    show_default=True,
    help="gpaw, ase:NAME, or module:function that makes an ASE calculator for an Atoms.",
)
@click.option("--cutoff", type=float, help="Plane waves, eV. [gpaw: 400]")
@click.option("--kpoint-density", type=float, help="Per 1/angstrom. [gpaw: 3.5]")
@click.option("--xc", help="Functional. [gpaw: PBE]")
@click.option(
    "--relax-steps",
    type=click.IntRange(min=0),
    default=0,
    help="Of a relaxation by DFT. [0: single points, as the structures are relaxed already and a "
    "step costs minutes]",
)
@fmax_option
@keep_constraints_option
@click.option(
    "--references",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Structures of elements, in the place of ASE's.",
)
@click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--executor", default="processes", show_default=True, help="As of adit discover.")
@click.option("--inputs", type=click.Choice(INPUTS), help="Compute nothing; write input folders.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder of --inputs, or JSON file of the results for a FILE.",
)
@click.pass_context
def dft(
    ctx: click.Context,
    source: Path,
    top: int,
    engine: str,
    cutoff: float | None,
    kpoint_density: float | None,
    xc: str | None,
    relax_steps: int,
    fmax: float,
    keep_constraints: bool,
    references: Path | None,
    workers: int,
    executor: str,
    inputs: str | None,
    out: Path | None,
) -> None:
    """Compute the best candidates of a campaign's folder, or the crystals of a FILE, by DFT.

    Formation energies are from elements computed with the same settings. What was computed is kept
    as it comes, and not computed again. What cannot be read, or is no crystal, is said.
    """
    from adit_plugins.campaign.dft_stage import DftTask
    from adit_plugins.campaign.store import has_store

    check_there(source)
    if out is not None:
        check_writable(out)
    campaign = has_store(source)
    check_dft(ctx, campaign)
    if inputs is not None:
        folder = out or Path(f"{inputs}-inputs")
        _write_inputs(source, campaign, top, inputs, folder, keep_constraints)
        return
    options = {"cutoff": cutoff, "kpoint_density": kpoint_density, "xc": xc}
    task = DftTask(
        engine, {key: value for key, value in options.items() if value is not None},
        relax_steps, fmax, executor, workers, _elements(references), keep_constraints,
    )  # fmt: skip
    found = task.made  # an unknown engine or option is found now
    stated = ", ".join(f"{key} {value}" for key, value in found.settings.items())
    click.echo(f"{found.name}: {stated}; " + (f"at most {relax_steps} relaxation steps"
                                              if relax_steps else "single points"))  # fmt: skip
    try:
        computed = _run_campaign(source, task, top) if campaign else _run_file(source, task, out)
    except KeyboardInterrupt:
        click.echo("Interrupted: what was computed is kept; the same command goes on.", err=True)
        ctx.exit(130)
    if not computed:
        ctx.exit(1)  # for a script: there is no result


def _elements(path: Path | None) -> dict[str, Atoms]:
    from adit_plugins.structures.reading import read_structures

    if path is None:
        return {}
    found: dict[str, Atoms] = {}
    for atoms in read_structures(path):
        symbols = set(atoms.symbols)
        if len(symbols) != 1:
            formula = atoms.get_chemical_formula()
            raise ValueError(f"--references {path} holds {formula}, which is no element.")
        found[symbols.pop()] = atoms
    return found


def _run_campaign(folder: Path, task: DftTask, top: int) -> int:
    """Return how many of the candidates have an energy by now, and say why others have none."""
    from rich.console import Console

    from adit_plugins.campaign.dft_stage import run_queue
    from adit_plugins.campaign.files import write_files
    from adit_plugins.campaign.report import print_tables
    from adit_plugins.campaign.store import Store
    from adit_plugins.report import write_campaign_report

    with Store(folder) as store:
        if not store.candidates():
            raise ValueError(f"{folder} has no candidates: nothing was relaxed.")
        try:
            with progress() as report:
                run_queue(store, task, top, report)
        finally:
            write_files(store)
            write_campaign_report(store)
        print_tables(store, Console(), max(top, 10))
        rows = [store.row(row_id) for row_id in store.candidates(top)]
        missing = {row["sample_id"]: row.get("dft_outcome") for row in rows
                   if "dft_energy_per_atom" not in row}  # fmt: skip
        for name, reason in missing.items():
            click.echo(f"{name}: not computed: {reason}")
        return len(rows) - len(missing)


def _run_file(file: Path, task: DftTask, out: Path | None) -> int:
    """Return how many were computed."""
    from adit_model.outputs import replacing
    from adit_plugins.campaign.dft_stage import REFERENCES, compute_crystals
    from adit_plugins.dft.engines import DftVerdict
    from adit_plugins.outputs import without_nan
    from adit_plugins.structures.facts import formula_of

    entries = crystals_of(file)
    places = [i for i, entry in enumerate(entries) if entry.atoms is not None]
    name, settings = task.made.name, dict(task.made.settings)
    rows: dict[int, dict[str, Any]] = {
        i: {"formula": "", **DftVerdict(name, settings, f"{entry.name}: {entry.reason}").as_dict()}
        for i, entry in enumerate(entries)
        if entry.atoms is None
    }
    fates = [""] * len(entries)

    def keep(place: int, found: DftVerdict, result: RelaxResult) -> None:
        formula = formula_of(result.atoms)
        rows[places[place]] = {
            "formula": formula, **found.as_dict(),
            "max_force": result.max_force, "constraints": result.constraints,
        }  # fmt: skip
        fates[places[place]] = result.constraints

    target = out.parent if out is not None else Path()
    crystals = [entry.atoms for entry in entries if entry.atoms is not None]
    with progress() as report:
        compute_crystals(crystals, task, target / REFERENCES, report, keep)
    ordered = [rows[place] for place in sorted(rows)]
    for row in ordered:
        formation, energy = row["formation_energy_per_atom"], row["energy_above_hull"]
        parts = [
            "no formation energy" if formation is None else f"E form {formation:.3f} eV/atom",
            "" if energy is None else f"E hull about {energy:.3f}",
            row["reason"],
            row["problem"],
            f"largest force {row['max_force']:.3f} eV/angstrom" if row.get("max_force") else "",
            f"{row['seconds']:.0f} s",
        ]
        what = row["formula"] or "not computed"
        click.echo(f"{what}: " + ", ".join(part for part in parts if part))
    say_constraints(fates)
    failed = sum(row["energy_per_atom"] is None for row in ordered)
    click.echo(f"{len(ordered) - failed} of {len(ordered)} structures computed.")
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(without_nan(ordered), indent=1), encoding="utf-8")
    return len(ordered) - failed


def _write_inputs(
    source: Path, campaign: bool, top: int, inputs: str, out: Path, keep_constraints: bool
) -> None:
    from adit_plugins.campaign.store import Store
    from adit_plugins.campaign.stored_rows import TEXT
    from adit_plugins.dft.inputs import INDEX, WRITERS, write_index
    from adit_plugins.relax.results import right_handed, without_constraints
    from adit_plugins.structures.entries import Entry
    from adit_plugins.structures.facts import formula_of

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty. Choose another --out.")
    if campaign:
        with Store(source) as store:
            ids = store.candidates(top)
            rows = list(store.rows(ids=ids))
            entries = [
                Entry(str(row["sample_id"]).removeprefix(TEXT), row.toatoms()) for row in rows
            ]
    else:
        entries = crystals_of(source)
    if not entries:
        raise ValueError(f"{source} has no candidates.")
    fates, names = [], {}
    for rank, entry in enumerate(entries, start=1):
        if entry.atoms is None:
            continue
        fates.append(("kept" if keep_constraints else "dropped") if entry.atoms.constraints else "")
        free = entry.atoms if keep_constraints else without_constraints(entry.atoms)
        atoms = right_handed(free)
        atoms.calc = None
        atoms.info = {}
        formula = formula_of(atoms)
        WRITERS[inputs](atoms, out / f"{rank:04d}-{formula}")
        names[f"{rank:04d}-{formula}"] = (entry.id or entry.name, formula)
    write_index(names, out)
    say_left_out(entries)
    say_constraints(fates)
    click.echo(
        f"{len(fates)} folders of {inputs} inputs in {out}/. The inputs keep no names or ids: "
        f"{INDEX} there says which is which."
    )
