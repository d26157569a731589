"""The tables of docs/request.md from the files of conditions.py and conditions_molecules.py.

python benchmarks/conditions_table.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from json_output import stored

UNITS = {
    "density": "g/cm3", "band_gap": "eV", "energy_above_hull": "eV/atom", "homo_lumo_gap": "eV",
    "dipole_moment": "D", "polarizability": "bohr3",
}  # fmt: skip


def scales(rows: dict[str, Any]) -> list[str]:
    """The columns of what was told, from plain to led the hardest."""
    return [name for name in rows if name.startswith("guidance")]


def header(first: list[str], rows: dict[str, Any]) -> Iterator[str]:
    """Two lines: names of the columns, and the rule."""
    cells = [
        *first,
        *(name.replace("guidance 1", "told").replace("guidance", "led by") for name in rows),
    ]
    yield "| " + " | ".join(cells) + " |"
    yield "|" + " --- |" * len(cells)


def space_groups(found: dict[str, Any], kept: dict[str, str]) -> Iterator[str]:
    """Shares of the group, raw and relaxed; and of known crystals that relaxation gives it back."""
    told = scales(next(iter(found.values())))
    first = ["space group", "found", "known, disturbed", "not told"]
    yield from header(first, dict.fromkeys(told))
    measures = {
        "share_at_0.1": "raw, within 0.1 angstrom", "share_at_0.3": "raw, within 0.3",
        "relaxed_share_at_0.1": "relaxed, within 0.1",
    }  # fmt: skip
    for target, rows in found.items():
        for key, words in measures.items():
            cells = [rows[name][key] for name in ("untold", *told)]
            limit = kept.get(target, "") if key.startswith("relaxed") else ""
            yield f"| {target} | {words} | {limit} | " + " | ".join(cells) + " |"


def numbers(results: dict[str, Any], limits: dict[str, Any]) -> Iterator[str]:
    """Mean absolute errors to each target, and those of known structures drawn at random."""
    names = [name for name in UNITS if name in results and name != "energy_above_hull"]
    told = scales(next(iter(results[names[0]].values())))
    yield from header(["mean distance to", "known, at random", "not told"], dict.fromkeys(told))
    for name in names:
        for target, rows in results[name].items():
            known = rows.get("qm9_at_random", limits.get(name, {}).get(target))
            errors = [rows[each]["mean_absolute_error"] for each in ("untold", *told)]
            cells = " | ".join(f"{value:.2f}" for value in (known, *errors))
            yield f"| {name} {target} {UNITS[name]} | {cells} |"


def energies(results: dict[str, Any]) -> Iterator[str]:
    """Energies above the hull of what was told each."""
    yield "| energy above hull, eV/atom | median, relaxed | at most 0.1 |"
    yield "| --- | --- | --- |"
    rows = {"not told": results["untold"]}
    for target, found in results["energy_above_hull"].items():
        rows |= {
            f"{target}, {name.replace('guidance 1', 'told').replace('guidance', 'led by')}": found[
                name
            ]
            for name in scales(found)
        }
    for name, row in rows.items():
        yield f"| {name} | {row['median_energy_above_hull']:.3f} | {row['below_0.1_eV']} |"


def main() -> int:
    """Print the tables."""
    crystals = stored("conditions")
    limits = crystals["training_set"]["share_or_mean_absolute_error"]
    kept = crystals["training_set"].get("space_group_kept_when_disturbed_and_relaxed", {})
    for lines in (
        space_groups(crystals["space_group"], kept), numbers(crystals, limits), energies(crystals),
    ):  # fmt: skip
        print("\n".join(lines), end="\n\n")
    print("\n".join(numbers(stored("conditions_molecules"), {})))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
