"""`adit discover`: generate, screen, relax, rank."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.options import KINDS, check_device, sampling_options
from adit_plugins.cli.progress import progress

if TYPE_CHECKING:
    from adit_plugins.campaign import Campaign
    from adit_plugins.generator import ADiTGenerator
    from adit_plugins.samples import Sample

DEFAULT_NUM = 64  # of each kind


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--num",
    type=click.IntRange(min=1),
    help="Samples of each kind, or the first structures of FILE. [default: 64, or all of FILE]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    metavar="DIR",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run in DIR.")
@click.option("--relaxer", default="chgnet", show_default=True, help="Potential; see adit doctor.")
@click.option("--no-relax", is_flag=True, help="Only generate and check.")
@click.option(
    "--fmax",
    type=click.FloatRange(min=0, min_open=True),
    default=0.05,
    show_default=True,
    help="Force limit, eV/angstrom.",
)
@click.option(
    "--max-steps",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Relaxation steps a crystal; what has not converged by then is marked.",
)
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [default: one a core]")
@sampling_options
@click.pass_context
def discover(
    ctx: click.Context,
    file: Path | None,
    num: int | None,
    out: Path,
    overwrite: bool,
    relaxer: str,
    no_relax: bool,
    fmax: float,
    max_steps: int,
    workers: int | None,
    **recipe: Any,
) -> None:
    """Generate crystals and molecules, check, relax and rank them; files go to DIR.

    With FILE, any structure file that ASE reads, its structures are taken instead of fresh ones.
    Ctrl-C keeps what was finished.
    """
    from adit_plugins.campaign import Campaign, Settings

    check_folder(out, overwrite)
    campaign = Campaign(Settings(None if no_relax else relaxer, fmax, max_steps, workers))
    check_relaxer(campaign.settings.relaxer)
    if file is not None:
        for sample in read_samples(file)[:num]:
            campaign.add(sample)
        recipe = {"file": file.name}
        generators: list[ADiTGenerator] = []
    else:
        generators = make_generators(recipe)
        recipe["num"] = num or DEFAULT_NUM
    try:
        run(campaign, generators, num or DEFAULT_NUM)
    except Exception:
        if campaign.crystals or campaign.molecules:  # hours of work may precede a late failure
            campaign.interrupted = True
            finish(campaign, out, recipe)
        raise
    finish(campaign, out, recipe)
    if campaign.interrupted:
        ctx.exit(130)


def make_generators(recipe: dict[str, Any]) -> list[ADiTGenerator]:
    """One generator a kind, with its weights loaded.

    Raises:
        ValueError: unknown device, missing or damaged weights, an impossible setting.
    """
    from adit_plugins.generator import ADiTGenerator

    check_device(recipe["device"])
    generators = [ADiTGenerator(kind=kind, **recipe) for kind in KINDS]  # type: ignore[arg-type]
    _ = generators[0].model  # missing or damaged weights are found before anything is touched
    return generators


def run(campaign: Campaign, generators: list[ADiTGenerator], num: int) -> None:
    """Run the stages; Ctrl-C ends them early and leaves the records as far as they came.

    Raises:
        RelaxerError: the potential cannot be loaded, or no worker can start.
        ValueError: the model cannot follow the recipe.
    """
    with progress() as report, warnings.catch_warnings():
        # pymatgen says it for every noble gas; the composition check knows what to do with NaN.
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        try:
            for generator in generators:
                campaign.generate(generator, num, report)
            campaign.screen(report)
            campaign.relax(report)
        except KeyboardInterrupt:
            campaign.interrupted = True
        finally:
            campaign.rank()


def finish(campaign: Campaign, out: Path, recipe: dict[str, Any]) -> None:
    """Write the files and print the tables."""
    from rich.console import Console

    from adit_plugins.campaign.files import write_files
    from adit_plugins.campaign.report import print_tables

    if campaign.interrupted and not (campaign.crystals or campaign.molecules):
        click.echo("Interrupted: nothing was finished, nothing was written.", err=True)
        return
    with _no_interruption():
        out.mkdir(exist_ok=True)
        write_files(campaign, out, recipe)
    print_tables(campaign, Console())
    num = len(campaign.crystals) + len(campaign.molecules)
    if campaign.interrupted:
        click.echo(f"Interrupted: the {num} finished structures are in {out}/.", err=True)
    else:
        seconds = sum(campaign.seconds.values())
        click.echo(f"{num} structures in {out}/ ({seconds:.0f} s).")


@contextmanager
def _no_interruption() -> Iterator[None]:
    """A second Ctrl-C waits until the files are complete (a second or two)."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or that holds anything but results to replace.

    Raises:
        ValueError: see above; the message says what to do.
    """
    from adit_plugins.campaign.files import is_results
    from adit_plugins.writers import check_output

    if out.is_dir() and any(out.iterdir()):
        if not is_results(out):
            raise ValueError(
                f"{out} is not empty and holds no results of adit discover. Choose another --out."
            )
        if not overwrite:
            raise ValueError(f"{out} holds results. Pass --overwrite, or choose another --out.")
    elif out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file. Choose another --out.")
    # As a file name in the folder, or in its parent where the folder has yet to be made.
    check_output((out if out.is_dir() else out.parent) / "crystals.extxyz")


def check_relaxer(name: str | None) -> None:
    """Find an unknown potential, or one whose package is missing, before anything is generated.

    Raises:
        UnknownPluginError: there is no relaxer of that name.
        MissingExtraError: its package is not installed.
    """
    from adit_plugins.relax import find_relaxer

    if name is not None:
        find_relaxer(name)


def read_samples(file: Path) -> list[Sample]:
    """Structures of a file as samples; those without an id get `FILE/number`.

    Raises:
        ValueError: the file or one of its structures cannot be read.
    """
    from adit_plugins.samples import Sample
    from adit_plugins.writers import read_structures

    samples = []
    for i, atoms in enumerate(read_structures(file)):
        try:
            sample = Sample.from_ase(atoms)
        except ValueError as error:
            raise ValueError(f"{file}, structure {i}: {error}") from error
        sample.provenance.setdefault("id", f"{file.name}/{i}")
        samples.append(sample)
    return samples
