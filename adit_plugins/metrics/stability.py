"""Energies above the hull of the structurally valid crystals, by the shared relaxers and hull."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from adit_plugins.metrics.crystals import CrystalMetrics
from adit_plugins.metrics.names import GIVEN, plain
from adit_plugins.metrics.rates import Rate
from adit_plugins.relax.limits import FMAX, MAX_STEPS

if TYPE_CHECKING:
    from ase import Atoms

    from adit_plugins.hull.table import Hull
    from adit_plugins.relax.results import RelaxResult
    from adit_plugins.relax.run import RelaxerFactory

METASTABLE, STABLE = 0.1, 0.0  # eV/atom above the hull: below the first, at most the second


def add_stability(
    metrics: CrystalMetrics,
    crystals: Sequence[Any],
    relaxer: str | RelaxerFactory = "chgnet",
    hull: Hull | None = None,
    max_steps: int = MAX_STEPS,
    fmax: float = FMAX,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Relax the valid crystals and add energies, stable and S.U.N. rates to their metrics.

    A crystal that is not structurally valid, whose relaxation fails, or for whose elements the hull
    has no reference is not stable; it stays in every denominator.

    Args:
        metrics: of `evaluate_crystals`, for the same crystals; changed in place.
        crystals: as given there.
        relaxer: a name from the entry points `adit.relaxers`, or a factory.
        hull: reference; None for the shipped table.
        max_steps: optimiser steps a structure.
        fmax: force limit, eV/angstrom.
        workers: processes; None for one a core, 0 for none.
        progress: called with a stage, the number done and the total.

    Raises:
        UnknownPluginError: there is no relaxer of that name.
        RelaxerError: the potential cannot be loaded.
    """
    from adit_plugins.hull.table import Hull as TheHull
    from adit_plugins.relax.run import relax
    from adit_plugins.structures.samples import to_sample

    hull = hull or TheHull.load()
    rows = metrics.rows
    places = [i for i, row in enumerate(rows) if row["struct_valid"]]
    atoms: list[Atoms] = [to_sample(crystals[i]).to_ase() for i in places]
    done = 0

    def keep(index: int, result: RelaxResult) -> None:
        nonlocal done
        done += 1
        rows[places[index]] |= _place(result, rows[places[index]], hull)
        if progress is not None:
            progress("crystals relaxed", done, len(places))

    for row in rows:
        row |= {"energy_above_hull": None, "relaxed": False, "rmsd": None, "hull_covered": None}
    relax(atoms, relaxer, fmax=fmax, max_steps=max_steps, workers=workers, on_result=keep)
    _summarise(metrics, hull)


def _place(result: RelaxResult, row: dict[str, Any], hull: Hull) -> dict[str, Any]:
    from adit_plugins.hull.energies import place

    found: dict[str, Any] = {
        "relaxed": not result.failed,
        "converged": result.converged,
        "relaxation": result.reason,
        "potential": result.potential,
        "rmsd": result.rmsd,
    }
    if result.energy_per_atom is None:
        return found
    try:
        formation, distance = place(result, hull)
    except (ValueError, ArithmeticError) as error:  # say, no reference for an element
        return found | {"hull_problem": str(error)}
    return found | {
        "formation_energy_per_atom": formation,
        "energy_above_hull": distance.energy_above_hull,
        "raw_energy_above_hull": distance.raw_energy_above_hull,
        "hull_covered": distance.all_covered,
    }


def _summarise(metrics: CrystalMetrics, hull: Hull) -> None:
    rows = metrics.rows
    placed = [row for row in rows if row["energy_above_hull"] is not None]
    names = sorted({row["potential"] for row in rows if "potential" in row})
    note = f"energies of {', '.join(names) or 'no potential'}, not of DFT; hull: {hull.source}"
    relaxed = sum(row["relaxed"] for row in rows)
    valid = sum(row["struct_valid"] for row in rows)
    converged = sum(bool(row.get("converged")) for row in rows)
    covered = sum(bool(row["hull_covered"]) for row in placed)
    metrics.rates += [
        Rate("relaxed", relaxed, valid, plain("struct_valid"),
             f"has an energy; {', '.join(names)}"),
        Rate("converged", converged, relaxed, "relaxed"),
        Rate("on the hull's scale", len(placed), relaxed, "relaxed", "elements have references"),
        Rate("hull coverage", covered, len(placed), "on the hull's scale",
             "every sub-system has a known compound; elsewhere the distance is too small"),
        *_stable_rates(rows, note),
    ]  # fmt: skip
    energies = [row["energy_above_hull"] for row in placed]
    moves = [row["rmsd"] for row in rows if row["rmsd"] is not None]
    metrics.distributions |= {"energy_above_hull": energies, "rmsd": moves}
    metrics.values |= {
        "mean energy above hull (eV/atom)": _mean(energies),
        "mean RMSD to the relaxed structure (angstrom)": _mean(moves),
    }
    metrics.notes.append(note)


def _stable_rates(rows: Sequence[dict[str, Any]], note: str) -> list[Rate]:
    rates = []
    for name, limit in (("stable", STABLE), ("metastable", METASTABLE)):
        chosen = [row for row in rows if is_within(row["energy_above_hull"], limit)]
        sun = sum(bool(row["unique"] and row["novel"]) for row in chosen)
        limits = f"E hull {limit_text(limit)} eV/atom, {note}"
        short = "S.U.N." if name == "stable" else "metastable S.U.N."
        rates += [
            Rate(name, len(chosen), len(rows), GIVEN, limits),
            Rate(short, sun, len(rows), GIVEN, f"{name}, unique and novel"),
        ]
    return rates


def is_within(energy_above_hull: float | None, limit: float) -> bool:
    """Return whether a distance (eV/atom) is known and below a limit, or at most 0 for `STABLE`."""
    if energy_above_hull is None:
        return False
    return energy_above_hull <= limit if limit == STABLE else energy_above_hull < limit


def limit_text(limit: float) -> str:
    """What `is_within` asks, in words: "< 0.1" or "<= 0"."""
    return f"{'<=' if limit == STABLE else '<'} {limit:g}"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
