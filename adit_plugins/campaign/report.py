"""The tables that a campaign ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adit_plugins.campaign.funnel import Tally
from adit_plugins.campaign.row_texts import ranking
from adit_plugins.campaign.store import Store
from adit_plugins.metrics.report import print_rates

if TYPE_CHECKING:
    from rich.console import Console


def print_tables(store: Store, console: Console, num_candidates: int = 10) -> None:
    """Print the funnels and the best candidates."""
    tally = Tally(store.verdicts())
    if tally.num_crystals:
        print_rates(console, "Crystals", {"": tally.crystal_funnel()})
        if tally.outcomes:
            _print_outcomes(console, tally)
            _print_candidates(console, store, num_candidates)
    if tally.num_molecules:
        print_rates(console, "Molecules", {"": tally.molecule_funnel()})


def _print_outcomes(console: Console, tally: Tally) -> None:
    """Why relaxations failed or did not converge, and crystals without a place on the hull."""
    text = "; ".join(f"{number} {kind}" for kind, number in tally.outcomes.most_common())
    unplaced = tally.crystals["unplaced"]
    missing = f". Without a place on the hull: {unplaced}" if unplaced else ""
    console.print(f"Relaxations ended by: {text}{missing}.", markup=False, highlight=False)


def _print_candidates(console: Console, store: Store, num: int) -> None:
    from rich.table import Table

    total = len(store.candidates())
    if not total:
        console.print("No candidate: none is valid, unique, novel and placed on the hull.")
        return
    rows = list(ranking(store, num))
    with_dft = any(row["dft_engine"] for row in rows)
    table = Table(
        title=f"Candidates (valid, unique, novel): {len(rows)} best of {total}",
        title_justify="left",
        title_style="bold",
        caption="eV/atom by the potential. P: probability that DFT puts it below 0.1, where "
        "calibrated. Coverage: sub-systems with reference phases. * not converged: an upper bound.",
        caption_justify="left",
    )
    headings = ["rank", "formula", "E form", "E hull", "P", "phases", "coverage"]
    for heading in headings + (["DFT form", "DFT hull"] if with_dft else []):
        table.add_column(
            heading,
            justify="left" if heading == "formula" else "right",
            overflow="fold",  # a formula that is cut says nothing
        )
    table.add_column("id", overflow="fold")
    for row in rows:
        table.add_row(*_cells(row, with_dft))
    console.print(table)


def _cells(row: dict[str, Any], with_dft: bool) -> list[str]:
    def text(name: str, form: str = ".3f") -> str:
        return "-" if row[name] is None else format(row[name], form)

    dft = [text("dft_formation_energy_per_atom"), text("dft_energy_above_hull")]
    return [
        str(row["rank"]),
        row["formula"],
        text("formation_energy_per_atom"),
        f"{text('energy_above_hull')}{'' if row['converged'] else '*'}",
        text("metastable_probability", ".2f"),
        str(row["num_reference_phases"]),
        f"{row['num_subsystems_covered']}/{row['num_subsystems']}",
        *(dft if with_dft else []),
        str(row["id"]),
    ]
