"""The tables that a campaign ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adit_plugins.campaign.funnel import crystal_funnel, molecule_funnel
from adit_plugins.campaign.pipeline import Campaign, Crystal
from adit_plugins.metrics.report import print_rates

if TYPE_CHECKING:
    from rich.console import Console


def print_tables(campaign: Campaign, console: Console, num_candidates: int = 10) -> None:
    """Print the funnels and the best candidates."""
    if campaign.crystals:
        print_rates(console, "Crystals", {"": crystal_funnel(campaign.crystals)})
        if any(crystal.relaxation is not None for crystal in campaign.crystals):
            _print_outcomes(console, campaign.crystals)
            _print_candidates(console, campaign.crystals, num_candidates)
    if campaign.molecules:
        print_rates(console, "Molecules", {"": molecule_funnel(campaign.molecules)})


def _print_outcomes(console: Console, crystals: Sequence[Crystal]) -> None:
    """Why relaxations failed or did not converge, and crystals without a place on the hull."""
    from adit_plugins.relax_results import outcomes

    ends = outcomes(c.relaxation for c in crystals if c.relaxation is not None)
    text = "; ".join(f"{number} {kind}" for kind, number in ends.items())
    unplaced = sum(bool(crystal.hull_problem) for crystal in crystals)
    missing = f". Without a place on the hull: {unplaced}" if unplaced else ""
    console.print(f"Relaxations ended by: {text}{missing}.", markup=False, highlight=False)


def _print_candidates(console: Console, crystals: Sequence[Crystal], num: int) -> None:
    from rich.table import Table

    ranked = sorted((c for c in crystals if c.rank is not None), key=lambda c: c.rank or 0)
    if not ranked:
        console.print("No candidate: none is valid, unique, novel and placed on the hull.")
        return
    table = Table(
        title=f"Candidates (valid, unique, novel): {min(num, len(ranked))} best of {len(ranked)}",
        title_justify="left",
        title_style="bold",
        caption="eV/atom by the potential. P: probability that DFT puts it below 0.1, where "
        "calibrated. Coverage: sub-systems with reference phases. * not converged: an upper bound.",
        caption_justify="left",
    )
    for heading in ("rank", "formula", "E form", "E hull", "P", "phases", "coverage"):
        table.add_column(
            heading,
            justify="left" if heading == "formula" else "right",
            overflow="fold",  # a formula that is cut says nothing
        )
    table.add_column("id", overflow="fold")
    for crystal in ranked[:num]:
        table.add_row(*_candidate_row(crystal))
    console.print(table)


def _candidate_row(crystal: Crystal) -> list[str]:
    hull, result = crystal.hull, crystal.relaxation
    assert hull is not None  # it has a rank
    assert result is not None
    return [
        str(crystal.rank),
        crystal.structure.composition.reduced_formula,
        f"{crystal.formation_energy_per_atom:.3f}",
        f"{hull.energy_above_hull:.3f}{'' if result.converged else '*'}",
        "-" if hull.metastable_probability is None else f"{hull.metastable_probability:.2f}",
        str(hull.num_reference_phases),
        f"{hull.num_subsystems_covered}/{hull.num_subsystems}",
        crystal.sample.id,
    ]
