"""`adit hull`: place structures with energies on the convex hull."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.inputs import entries_of
from adit_plugins.cli.options import hull_option

if TYPE_CHECKING:
    from adit_plugins.hull.table import Hull
    from adit_plugins.structures.entries import Entry

ROWS = 20  # of the table
LEAST = ("E raw", "coverage", "P", "E form")  # what a narrow terminal goes without, the first first

CAPTION = (
    "eV/atom; E raw: above the hull without the corrections of the potential's own elements. P: "
    "probability that DFT puts it below 0.1, where calibrated. Coverage: sub-systems with known "
    "compounds. * not converged, or held by constraints: an upper bound."
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@hull_option
@click.option(
    "--convention",
    type=click.Choice(["mp2020", "mp-raw"]),
    help="Of the energies: with the Materials Project's corrections, or raw energies of its "
    "settings, to which they are added. [default: what adit relax wrote]",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE")
def hull(file: Path, hull: str, convention: str | None, json_file: Path | None) -> None:
    """Formation energy and energy above hull of the structures in FILE, lowest first.

    FILE holds energies, as adit relax writes them. Negative: below every known combination of
    phases. Coverage: sub-systems of the elements with a known compound; where it is low, the
    distance is too small.
    """
    from adit_plugins.hull.loaders import load_hull
    from adit_plugins.structures.writers import check_output

    if json_file is not None:
        if json_file.suffix != ".json":
            raise ValueError(f"--json {json_file} must end in .json.")
        check_output(json_file)
    reference = load_hull(hull)
    rows = [
        {"index": i, **_place(entry, reference, convention)}
        for i, entry in enumerate(entries_of(file))
    ]
    if json_file is not None:
        _write(rows, reference, json_file)
    _print_table(rows, reference)
    if all(row["energy_above_hull"] is None for row in rows):
        raise ValueError(f"none of the {len(rows)} structures has a place: {rows[0]['problem']}")


def _place(entry: Entry, reference: Hull, convention: str | None) -> dict[str, Any]:
    from dataclasses import asdict

    from adit_plugins.hull.energies import place
    from adit_plugins.hull.table import UnknownElementError
    from adit_plugins.relax.files import result_of
    from adit_plugins.structures.facts import formula_of
    from adit_plugins.structures.provenance import provenance_in

    row: dict[str, Any] = {"id": "", "formula": "", "energy_above_hull": None, "problem": ""}
    atoms = entry.atoms
    if atoms is None:
        return row | {"id": entry.id or entry.name, "problem": f"unreadable: {entry.reason}"}
    row["id"] = provenance_in(atoms.info).get("id", "") or entry.id
    if len(atoms):
        row["formula"] = formula_of(atoms)
    try:
        result = result_of(atoms, convention)
        formation, found = place(result, reference)
    except UnknownElementError as error:  # which elements are known is the same for all
        return row | {"problem": str(error).partition(" Known elements:")[0]}
    except (ValueError, ArithmeticError) as error:
        return row | {"problem": str(error)}
    return row | {
        "converged": result.converged,
        "held": result.constraints == "kept",
        "potential": result.potential,
        "formation_energy_per_atom": formation,
        **asdict(found),
        "all_covered": found.all_covered,
    }


def _write(rows: list[dict[str, Any]], reference: Hull, path: Path) -> None:
    from adit_model.outputs import replacing
    from adit_plugins.outputs import without_nan

    content = without_nan({"source": reference.source, "structures": rows})
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _cells(row: dict[str, Any], name: str) -> tuple[str, ...]:
    probability = row["metastable_probability"]
    return (
        str(row["index"]),
        row["formula"],
        f"{row['formation_energy_per_atom']:.3f}",
        f"{row['energy_above_hull']:.3f}{'' if row['converged'] and not row['held'] else '*'}",
        f"{row['raw_energy_above_hull']:.3f}",
        "-" if probability is None else f"{probability:.2f}",
        f"{row['num_subsystems_covered']}/{row['num_subsystems']}",
        name,
    )


def _print_table(rows: list[dict[str, Any]], reference: Hull) -> None:
    from rich.console import Console

    from adit_plugins.hull.thinness import thin_note
    from adit_plugins.outputs import common_prefix, print_rows

    placed = [row for row in rows if row["energy_above_hull"] is not None]
    placed.sort(key=lambda row: float(row["energy_above_hull"]))
    prefix = common_prefix([str(row["id"]) for row in placed])
    beginning = f"; ids begin with {prefix}" if prefix else ""
    headings = {
        "#": "right", "formula": "left",
        **dict.fromkeys(("E form", "E hull", "E raw", "P", "coverage"), "right"), "id": "text",
    }  # fmt: skip
    lines = [
        dict(zip(headings, _cells(row, str(row["id"]).removeprefix(prefix)), strict=True))
        for row in placed[:ROWS]
    ]
    console = Console()
    if placed:  # else the error says what is missing
        title = f"{len(placed)} of {len(rows)} have a place{beginning}"
        print_rows(console, title, headings, lines, LEAST)
        console.print(f"Hull: {reference.source}. {CAPTION}", markup=False, highlight=False)
    shown = ((f"#{row['index']}", row["likely_too_low_by"]) for row in placed[:ROWS])
    if thin := thin_note(shown):
        console.print(thin, markup=False, highlight=False)
    if len(placed) > ROWS:
        console.print(f"... and {len(placed) - ROWS} more")
    if references := sorted({row["references"] for row in placed} - {""}):
        console.print(f"Elements corrected by: {'; '.join(references)}.", highlight=False)
    problems = [row for row in rows if placed and (row["problem"] or row.get("note"))]
    for row in problems[:ROWS]:
        what = " ".join(filter(None, (row["id"], row["formula"])))
        said = row["problem"] or row["note"]
        console.print(f"{what or row['index']}: {said}", markup=False, highlight=False)
    if len(problems) > ROWS:
        console.print(f"... and {len(problems) - ROWS} more with something to say")
    if any(row["problem"].startswith("No reference energy") for row in problems):
        console.print(f"Known elements: {', '.join(sorted(reference.references))}.")
