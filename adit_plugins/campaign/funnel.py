"""Counts from generated to stable, unique and novel, each with its denominator."""

from __future__ import annotations

from collections.abc import Sequence

from adit_plugins.campaign.pipeline import Crystal, MoleculeRecord
from adit_plugins.metrics.rates import Rate
from adit_plugins.metrics.stability import METASTABLE, STABLE, is_within


def crystal_funnel(crystals: Sequence[Crystal]) -> list[Rate]:
    """Counts from generated to stable, unique and novel.

    A total counts the records that have this verdict: after an interruption fewer than there are.
    """
    num = len(crystals)
    checked = [c for c in crystals if c.structure_valid is not None]
    valid = [c for c in checked if c.structure_valid]
    compared = [c for c in valid if c.unique is not None]
    unique = [c for c in compared if c.unique]
    looked_up = [c for c in unique if c.novel is not None]
    novel = sum(bool(c.novel) for c in looked_up)
    composition_valid = sum(bool(c.composition_valid) for c in checked)
    return [
        Rate("generated", num, num, "generated"),
        Rate("structurally valid", len(valid), len(checked), "generated"),
        Rate("composition valid", composition_valid, len(checked), "generated"),
        Rate("unique", len(unique), len(compared), "structurally valid"),
        Rate("novel", novel, len(looked_up), "unique"),
        *_energy_counts(crystals),
    ]


def _energy_counts(crystals: Sequence[Crystal]) -> list[Rate]:
    """Counts that need a potential; none if nothing was relaxed."""
    results = [c.relaxation for c in crystals if c.relaxation is not None]
    if not results:
        return []
    potential = results[0].potential
    with_energy = sum(not result.failed for result in results)
    converged = sum(result.converged for result in results)
    placed = [c for c in crystals if c.energy_above_hull is not None]
    metastable = [c for c in placed if is_within(c.energy_above_hull, METASTABLE)]
    stable = sum(is_within(c.energy_above_hull, STABLE) for c in placed)
    chosen = sum(bool(c.unique and c.novel) for c in metastable)
    settled = sum(c.structure_valid is False or c.relaxation is not None for c in crystals)
    return [
        Rate(f"relaxed with {potential}", with_energy, len(results), "structurally valid"),
        Rate("converged", converged, with_energy, "relaxed"),
        # Without a reference for an element there is no place on the hull: relaxed, not stable.
        Rate(f"E hull <= {METASTABLE:g} by {potential}", len(metastable), with_energy, "relaxed"),
        Rate(f"E hull <= {STABLE:g} by {potential}", stable, with_energy, "relaxed"),
        Rate(f"E hull <= {METASTABLE:g}, unique, novel", chosen, settled, "generated"),
    ]


def molecule_funnel(molecules: Sequence[MoleculeRecord]) -> list[Rate]:
    """Counts from generated to novel; totals as for crystals."""
    num = len(molecules)
    reports = [m.report for m in molecules if m.report is not None]
    checked = len(reports)
    compared = [m for m in molecules if m.unique is not None]
    unique = [m for m in compared if m.unique]
    looked_up = [m for m in unique if m.novel is not None]
    busted = sum(bool(r.posebusters) and all((r.posebusters or {}).values()) for r in reports)
    return [
        Rate("generated", num, num, "generated"),
        Rate("connected", sum(r.connected for r in reports), checked, "generated"),
        Rate("valid (RDKit)", sum(r.rdkit_valid for r in reports), checked, "generated"),
        Rate("valid (strict)", sum(r.strict_valid for r in reports), checked, "generated"),
        Rate("PoseBusters, all checks", busted, checked, "generated"),
        Rate("unique", len(unique), len(compared), "valid (RDKit)"),
        Rate("novel", sum(bool(m.novel) for m in looked_up), len(looked_up), "unique"),
    ]
