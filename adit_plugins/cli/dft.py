"""`adit dft`: compute the best candidates of a campaign, or any crystals, by DFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.options import fmax_option
from adit_plugins.cli.progress import progress

if TYPE_CHECKING:
    from ase import Atoms

    from adit_plugins.campaign.dft_stage import DftTask
    from adit_plugins.dft import DftVerdict

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
    show_default=True,
    help="Of a relaxation by DFT; 0 for single points.",
)
@fmax_option
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
    references: Path | None,
    workers: int,
    executor: str,
    inputs: str | None,
    out: Path | None,
) -> None:
    """Compute the best candidates of a campaign's folder, or the crystals of a FILE, by DFT.

    Formation energies are from elements computed with the same settings. What was computed is kept
    as it comes, and not computed again.
    """
    from adit_plugins.campaign.dft_stage import DftTask
    from adit_plugins.campaign.store import has_store

    campaign = has_store(source)
    if inputs is not None:
        _write_inputs(source, campaign, top, inputs, out or Path(f"{inputs}-inputs"))
        return
    options = {"cutoff": cutoff, "kpoint_density": kpoint_density, "xc": xc}
    task = DftTask(
        engine, {key: value for key, value in options.items() if value is not None},
        relax_steps, fmax, executor, workers, _elements(references),
    )  # fmt: skip
    found = task.made  # an unknown engine or option is found now
    stated = ", ".join(f"{key} {value}" for key, value in found.settings.items())
    click.echo(f"{found.name}: {stated}; " + (f"at most {relax_steps} relaxation steps"
                                              if relax_steps else "single points"))  # fmt: skip
    try:
        if campaign:
            _run_campaign(source, task, top)
        else:
            _run_file(source, task, out)
    except KeyboardInterrupt:
        click.echo("Interrupted: what was computed is kept; the same command goes on.", err=True)
        ctx.exit(130)


def _elements(path: Path | None) -> dict[str, Atoms]:
    from adit_plugins.readers import read_structures

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


def _run_campaign(folder: Path, task: DftTask, top: int) -> None:
    from rich.console import Console

    from adit_plugins.campaign.dft_stage import run_queue
    from adit_plugins.campaign.files import write_files
    from adit_plugins.campaign.report import print_tables
    from adit_plugins.campaign.store import Store
    from adit_plugins.report import write_campaign_report

    with Store(folder) as store:
        if not store.ranked("energy_above_hull", "composition_valid"):
            raise ValueError(f"{folder} has no candidates: nothing was relaxed.")
        try:
            with progress() as report:
                run_queue(store, task, top, report)
        finally:
            write_files(store)
            write_campaign_report(store)
        print_tables(store, Console(), max(top, 10))


def _run_file(file: Path, task: DftTask, out: Path | None) -> None:
    from adit_plugins.campaign.dft_stage import REFERENCES, compute_crystals
    from adit_plugins.outputs import replacing, without_nan
    from adit_plugins.readers import read_structures

    crystals = read_structures(file)
    if not all(atoms.pbc.all() for atoms in crystals):
        raise ValueError(f"{file} holds molecules; adit dft computes crystals.")
    rows: dict[int, dict[str, Any]] = {}

    def keep(place: int, found: DftVerdict, result: Any) -> None:
        formula = result.atoms.get_chemical_formula("metal", empirical=True)
        rows[place] = {"formula": formula, **found.as_dict()}

    target = out.parent if out is not None else Path()
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
            f"{row['seconds']:.0f} s",
        ]
        click.echo(f"{row['formula']}: " + ", ".join(part for part in parts if part))
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(without_nan(ordered), indent=1), encoding="utf-8")


def _write_inputs(source: Path, campaign: bool, top: int, inputs: str, out: Path) -> None:
    from adit_plugins.campaign.store import Store
    from adit_plugins.dft_inputs import WRITERS
    from adit_plugins.readers import read_structures

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty. Choose another --out.")
    if campaign:
        with Store(source) as store:
            ids = store.ranked("energy_above_hull", "composition_valid")[:top]
            crystals = [store.row(row_id).toatoms() for row_id in ids]
    else:
        crystals = read_structures(source)
    if not crystals:
        raise ValueError(f"{source} has no candidates.")
    for rank, atoms in enumerate(crystals, start=1):
        atoms.calc = None
        atoms.info = {}
        formula = atoms.get_chemical_formula("metal", empirical=True)
        WRITERS[inputs](atoms, out / f"{rank:04d}-{formula}")
    click.echo(f"{len(crystals)} folders of {inputs} inputs in {out}/.")
