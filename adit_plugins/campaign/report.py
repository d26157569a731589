"""The tables that a campaign ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adit_plugins.campaign.endings import STRUCTURES, ending
from adit_plugins.campaign.funnel import Tally, base_of
from adit_plugins.campaign.records import generated_sample
from adit_plugins.campaign.rendering import formula
from adit_plugins.campaign.row_texts import ranking
from adit_plugins.campaign.store import Store
from adit_plugins.hull.thinness import thin_note
from adit_plugins.metrics.names import GIVEN
from adit_plugins.metrics.report import print_rates
from adit_plugins.metrics.stability import METASTABLE
from adit_plugins.outputs import common_prefix, print_rows
from adit_plugins.structures.provenance import KEY

if TYPE_CHECKING:
    from rich.console import Console


def print_tables(store: Store, console: Console, num_candidates: int = 10) -> None:
    """Print the funnels, how each given structure ended, and the best candidates."""
    tally = Tally(store.verdicts(), base_of(store.metadata["recipe"]))
    if tally.base == GIVEN and len(store):
        _print_given(console, store)
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


GIVEN_ROWS = 20  # of one's own structures
# What a narrow terminal goes without, the first first; all of it is in ranking.csv.
LEAST = ("charges", "coverage", "novelty", "diff", "P", "agree", "id")
AGREES = {True: "yes", False: "no", None: "-"}
ENERGY = "E hull: eV/atom by the potential; * not converged: an upper bound."
NOVELTY = (
    "Novelty: the relaxed structure is in the training set, its formula is there or in the hull's "
    "table, or neither; that nobody knows it is not said."
)
CAPTION = (
    f"{ENERGY} P: probability that DFT puts it below 0.1, where calibrated. Coverage: sub-systems "
    "with reference phases; without any a structure is ranked last. Charges: balanced by SMACT's "
    f"rule, its mixed-valence rule, pymatgen's guess, or none. {NOVELTY}"
)


def _print_candidates(console: Console, store: Store, num: int) -> None:
    total = len(store.candidates())
    if not total:
        console.print(_no_candidate(store), markup=False, highlight=False)
        return
    rows = list(ranking(store, num))
    with_dft = any(row["dft_engine"] for row in rows)
    second = next((row["confirm_potential"] for row in rows if row["confirm_potential"]), "")
    prefix = common_prefix([str(row["id"]) for row in rows])
    beginning = f"; ids begin with {prefix}" if prefix else ""
    columns = _columns(with_dft, bool(second))
    headings = (
        {"#": "right", "formula": "left"}
        | {name: "text" if name in ("charges", "novelty") else "right" for name in columns}
        | {"id": "text"}
    )
    cells = [
        {"#": str(row["rank"]), "formula": row["formula"]}
        | _cells(row)
        | {"id": str(row["id"]).removeprefix(prefix)}
        for row in rows
    ]
    title = f"Candidates: {len(rows)} best of {total}{beginning}"
    print_rows(console, title, headings, cells, LEAST)
    caption = CAPTION
    if second:
        caption = (
            f"{ENERGY} 2nd: by {second} from there, and how much higher; agree: on being below "
            f"{METASTABLE:g} or not. P, coverage and charges: ranking.csv. {NOVELTY}"
        )
    hulls = sorted({f"Hull: {row['hull']}." for row in rows if row["hull"]})
    thin = thin_note((f"#{row['rank']}", row["likely_too_low_by"]) for row in rows)
    text = " ".join(filter(None, (caption, *hulls, thin)))
    console.print(text, markup=False, highlight=False)


def _print_given(console: Console, store: Store) -> None:
    """How each of one's own structures ended, in the order in which they came."""
    ranks = {row_id: rank for rank, row_id in enumerate(store.candidates(), start=1)}
    rows = []
    for row in store.rows(ids=store.ids()[:GIVEN_ROWS]):
        columns, rank = row.key_value_pairs, ranks.get(row.id)
        said = ending(columns, row.data, rank)
        energy = columns.get("energy_above_hull")
        sample = generated_sample(row)
        rows.append({
            "name": str(row.data[KEY]["id"]),
            "formula": "-" if sample is None else formula(sample),
            "E hull": "-" if energy is None else f"{energy:.3f}",
            "ended": said if rank is None else f"{said}, rank {rank}",
        })  # fmt: skip
    headings = {"name": "text", "formula": "left", "E hull": "right", "ended": "text"}
    print_rows(console, f"Your {len(store)} structures", headings, rows)
    more = len(store) - len(rows)
    said = f"... and {more} more: all" if more else "All verdicts"
    console.print(f"{said} are in {STRUCTURES}.", markup=False, highlight=False)


def _columns(with_dft: bool, with_second: bool) -> list[str]:
    """Return what fits into 80 columns beside rank, formula and id."""
    if not with_second:
        return ["E hull", *(["DFT hull"] if with_dft else ["P", "coverage"]), "charges", "novelty"]
    return ["E hull", *(["DFT hull", "2nd"] if with_dft else ["2nd", "diff"]), "agree", "novelty"]


def _no_candidate(store: Store) -> str:
    """Why nothing is ranked, in numbers."""
    placed = len(store.ranked("energy_above_hull", "relaxed"))
    settings = store.metadata["settings"]
    asked = {name: settings.get(name) for name in ("max_hull", "neutral_by")}
    limits = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
    if placed and limits:
        return f"No candidate: {placed} relaxed and placed on the hull, none within {limits}."
    return (
        "No candidate: nothing was valid, unique, novel, relaxed and placed on the hull. The rows "
        "above say where the structures went."
    )


def _cells(row: dict[str, Any]) -> dict[str, str]:
    def text(name: str, form: str = ".3f") -> str:
        return "-" if row[name] is None else format(row[name], form)

    return {
        "E hull": f"{text('energy_above_hull')}{'' if row['converged'] else '*'}",
        "DFT hull": text("dft_energy_above_hull"),
        "P": text("metastable_probability", ".2f"),
        "coverage": f"{row['num_subsystems_covered']}/{row['num_subsystems']}",
        "2nd": text("confirm_energy_above_hull"),
        "diff": text("confirm_difference", "+.3f"),
        "agree": AGREES[row["confirm_agrees"]],
        "charges": row["neutral_by"] or "-",
        "novelty": row["novelty"] or "-",
    }
