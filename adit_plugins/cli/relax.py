"""`adit relax`: relax the structures of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.inputs import check_there, entries_of, say_constraints, say_left_out
from adit_plugins.cli.options import (
    check_time_limit,
    fmax_option,
    keep_constraints_option,
    max_steps_option,
)
from adit_plugins.cli.progress import progress
from adit_plugins.relax.limits import TIME_LIMIT_SECONDS

if TYPE_CHECKING:
    from ase import Atoms

ROWS = 20  # of the table
NUMBERS = ("eV/atom", "force", "RMSD", "volume", "group")
LEAST = ("group", "volume", "RMSD", "force")  # what a narrow terminal goes without, the first first


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("relaxed.extxyz"),
    show_default=True,
    metavar="FILE",
    help="Relaxed structures with energy, forces, stress and the outcome (.extxyz).",
)
@click.option(
    "--relaxer",
    default="chgnet",
    show_default=True,
    help="chgnet, sevennet, mace-mpa-0, mace:NAME or mace:PATH, torch-sim:NAME or PATH, "
    "module:function that returns an ASE calculator, or env:NAME_OR_PATH:module:function for one "
    "in another Python.",
)
@fmax_option
@max_steps_option
@keep_constraints_option
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=TIME_LIMIT_SECONDS,
    show_default=True,
    help="Seconds a structure, whatever the potential does; not with --workers 0.",
)
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [default: one a core]")
@click.option("--resume", is_flag=True, help="Keep what is finished in --out, and do the rest.")
@click.option("--overwrite", is_flag=True, help="Replace --out.")
@click.pass_context
def relax(
    ctx: click.Context,
    file: Path,
    out: Path,
    relaxer: str,
    fmax: float,
    max_steps: int,
    keep_constraints: bool,
    resume: bool,
    overwrite: bool,
    **limits: Any,
) -> None:
    """Relax crystals (with their cells) and molecules of FILE, any structure file.

    Each gets its outcome: converged or why not, energy, forces, stress, how far it moved. What
    cannot be read is a failure of its own. Every result is kept as it comes: after Ctrl-C or a
    crash --resume goes on from there.
    """
    from adit_plugins.relax.files import frame, read_frames, unreadable, write_frames
    from adit_plugins.relax.run import find_relaxer

    check_time_limit(ctx)
    check_there(file)
    _check_out(out, resume, overwrite)
    find_relaxer(relaxer)
    entries = entries_of(file)
    say_left_out(entries)
    structures = [entry.atoms for entry in entries]
    settings = {
        "relaxer": relaxer, "fmax": fmax, "max_steps": max_steps,
        "keep_constraints": keep_constraints,
    }  # fmt: skip
    frames = read_frames(out, structures, settings) if resume and out.exists() else {}
    frames |= {
        i: frame(i, unreadable(entry.id or entry.name, entry.reason), settings)
        for i, entry in enumerate(entries)
        if entry.atoms is None
    }
    try:
        _run(structures, frames, settings, out, **limits)
        finished = True
    except KeyboardInterrupt:
        finished = False
    finally:
        done = any(structures[i] is not None for i in frames)  # beside what cannot be read
        if done:
            write_frames(frames, out)  # in the order of the input
    if done:
        _print_table(frames)
        say_constraints(atoms.info["relax"]["constraints"] for atoms in frames.values())
        failed = sum(atoms.info["relax"]["energy"] is None for atoms in frames.values())
        suffix = f"; {failed} failed" if failed else ""
        click.echo(f"{len(frames)} of {len(structures)} structures in {out}{suffix}.")
        if finished and failed == len(frames):
            ctx.exit(1)  # for a script: nothing of it can be used
    if not finished:
        kept = "--resume goes on from there." if done else "Nothing was finished."
        click.echo(f"Interrupted. {kept}", err=True)
        ctx.exit(130)


def _run(
    structures: Sequence[Atoms | None],
    frames: dict[int, Atoms],
    settings: dict[str, Any],
    out: Path,
    workers: int | None,
    time_limit: float,
) -> None:
    """Relax what `frames` lacks; each frame is on the disk as soon as it is finished.

    Raises:
        RelaxerError: the potential cannot be loaded; what was finished is kept.
    """
    from adit_plugins.relax.files import append_frame, frame, write_frames
    from adit_plugins.relax.results import RelaxResult
    from adit_plugins.relax.run import relax

    missing = {
        i: atoms for i, atoms in enumerate(structures) if atoms is not None and i not in frames
    }
    places = list(missing)
    begun = False
    with progress() as report:
        report("structures relaxed", len(frames), len(structures))

        def keep(place: int, result: RelaxResult) -> None:
            nonlocal begun
            index = places[place]
            frames[index] = frame(index, result, settings)
            if begun:
                append_frame(frames[index], out)
            else:  # replaces what was there: an older file, or one with half a frame at its end
                write_frames(frames, out)
            begun = True
            report("structures relaxed", len(frames), len(structures))

        relax(
            list(missing.values()),
            **settings,
            workers=workers,
            on_result=keep,
            time_limit=time_limit,
        )


def _check_out(out: Path, resume: bool, overwrite: bool) -> None:
    """Find a place that cannot be written before the work, and a file that would be lost.

    Raises:
        ValueError: see above.
    """
    from adit_plugins.structures.writers import check_output

    if out.suffix != ".extxyz":
        raise ValueError(f"--out {out} must end in .extxyz: no other format keeps all results.")
    check_output(out)
    if resume and overwrite:
        raise click.UsageError("--resume keeps the file and --overwrite replaces it: choose one.")
    if out.exists() and not (resume or overwrite):
        raise ValueError(f"{out} exists. Pass --resume, --overwrite or another --out.")


def _print_table(frames: dict[int, Atoms]) -> None:
    from rich.console import Console

    from adit_plugins.outputs import common_prefix, print_rows
    from adit_plugins.relax.files import name_of

    records = [frames[i].info["relax"] for i in sorted(frames)]
    ids = {i: name_of(frames[i]) or str(i) for i in frames}
    prefix = common_prefix(list(ids.values()))
    beginning = f"; ids begin with {prefix}" if prefix else ""
    headings = {
        "id": "text", "formula": "left", **dict.fromkeys(NUMBERS, "right"), "outcome": "text",
    }  # fmt: skip
    rows = [
        dict(zip(headings, (ids[i].removeprefix(prefix), *_row(frames[i])), strict=True))
        for i in sorted(frames)[:ROWS]
    ]
    title = f"Relaxed with {max(record['potential'] for record in records)}{beginning}"
    console = Console()
    print_rows(console, title, headings, rows, LEAST)
    console.print("Force: eV/angstrom. RMSD: angstrom. Group: space groups before and after.")
    if len(frames) > ROWS:
        console.print(f"... and {len(frames) - ROWS} more")
    for reason, number in Counter(record["reason"] for record in records).most_common():
        console.print(f"{number:6d} {reason}", markup=False, highlight=False)


def _row(atoms: Atoms) -> list[str]:
    from adit_plugins.structures.facts import formula_of

    record = atoms.info["relax"]

    def text(name: str, form: str) -> str:
        return "-" if record[name] is None else format(record[name], form)

    groups = (record["space_group_before"], record["space_group_after"])
    outcome = "failed" if record["energy"] is None else record["reason"]
    return [
        formula_of(atoms) if len(atoms) else "-",
        text("energy_per_atom", ".3f"),
        text("max_force", ".3f"),
        text("rmsd", ".2f"),
        text("volume_change", "+.0%"),
        ">".join(str(group or "?") for group in groups) if any(groups) else "-",
        outcome,
    ]
