"""Rates of molecules from their rows of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from adit_plugins.metrics.names import GIVEN, in_words
from adit_plugins.metrics.rates import Rate, rate
from adit_plugins.validity.posebusters_checks import (
    CLASH_CHECK,
    ENERGY_CHECK,
    PUBLISHED_CLASH_CHECK,
    check_names,
    thresholds,
)

Row = dict[str, Any]

RULES = ("openbabel", "edm", "strict")
NOTES = {
    "openbabel": "OpenBabel's bonds through PDB, sanitised by RDKit; fragments and radicals pass "
    "(arXiv:2503.03965)",
    "edm": "EDM's bond-length tables, sanitised by RDKit; fragments and radicals pass "
    "(arXiv:2203.17003)",
    "strict": "RDKit's bonds of the whole molecule, neutral, one fragment, no radicals",
}


@dataclass(frozen=True)
class MoleculeMetrics:
    """What `adit_plugins.metrics.molecules.evaluate_molecules` found.

    Attributes:
        rates: each with numerator and denominator; one that could not be measured has a
            denominator of 0 and says why in its note.
        rows: one a molecule in the order of the input: verdicts by name, SMILES by rule, `reason`
            why it is not strictly valid, `reason_openbabel`, `reason_edm`, `problem` where the
            checks were stopped.
        distributions: `num_atoms`, `strain_energy` (eV), `energy_ratio` (PoseBusters), over the
            molecules that have them.
        notes: what was left out, and the limits in use.
    """

    rates: list[Rate]
    rows: list[Row]
    distributions: dict[str, list[float]]
    notes: list[str] = field(default_factory=list)


def summarise(
    rows: Sequence[Row], babel_missing: str, fast: bool, time_limit: float | None
) -> MoleculeMetrics:
    """Count.

    Args:
        rows: the verdicts, one a molecule.
        babel_missing: how to install OpenBabel, if it is not there.
        fast: PoseBusters' energy check was left out.
        time_limit: seconds a molecule; None where there was none.
    """
    rates = [rate("connected", [row["connected"] for row in rows], GIVEN)]
    for rule in RULES:
        rates += _validity_rates(rows, rule, babel_missing if rule == "openbabel" else "")
    bonds = "RDKit's bonds" if babel_missing else "valid_openbabel"
    rates += _posebusters_rates(rows, bonds, fast, time_limit)
    names = ("num_atoms", "strain_energy", "energy_ratio")
    distributions = {
        name: [float(row[name]) for row in rows if row[name] is not None] for name in names
    }
    distributions["num_atoms"] = [each for each in distributions["num_atoms"] if each]
    notes = _notes(rows, babel_missing, fast, time_limit)
    return MoleculeMetrics(in_words(rates), list(rows), distributions, notes)


def _validity_rates(rows: Sequence[Row], rule: str, missing: str) -> list[Rate]:
    valid, unique, novel = f"valid_{rule}", f"unique_{rule}", f"novel_{rule}"
    if missing:
        note = f"not available: {missing}"
        pairs = ((valid, GIVEN), (unique, valid), (novel, unique))
        return [Rate(name, 0, 0, of, note) for name, of in pairs]
    rates = [
        rate(valid, [row[valid] for row in rows], GIVEN, NOTES[rule]),
        rate(unique, [row[unique] for row in rows], valid),
        rate(novel, [row[novel] for row in rows], unique, "by SMILES without stereo"),
    ]
    if rule == "edm":
        atoms = sum(row["num_atoms"] for row in rows)
        stable = sum(row["num_stable_atoms"] for row in rows)
        note = "unreadable molecules have no atoms to count"
        rates = [
            Rate("atom_stability_edm", stable, atoms, "atoms", note),
            rate("molecule_stability_edm", [row["stable_edm"] for row in rows], GIVEN),
            *rates,
        ]
    return rates


def _posebusters_rates(
    rows: Sequence[Row], bonds: str, fast: bool, time_limit: float | None
) -> list[Rate]:
    """Each check of the molecules that have bonds, all of them of everything."""
    busted = [row for row in rows if row["posebusters"] is not None]
    rates = []
    for name in check_names():
        if fast and name == ENERGY_CHECK:
            rates.append(Rate(f"posebusters_{name}", 0, 0, bonds, "left out by the fast mode"))
            continue
        flags = [row["posebusters"][name] for row in busted]
        not_done = sum(name in row["not_done"] for row in busted)
        note = f"{not_done} could not be done and count as failed" if not_done else ""
        if name == PUBLISHED_CLASH_CHECK:
            note = "the limit of arXiv:2503.03965; PoseBusters' own is 0.7"
        rates.append(rate(f"posebusters_{name}", flags, bonds, note))
    all_passed = [_passes_all(row["posebusters"]) for row in rows]
    name = "posebusters_all_but_energy" if fast else "posebusters_all"
    rates.append(rate(name, all_passed, GIVEN, "at PoseBusters' own limits"))
    # The lenient bonds imply hydrogens that are not there; together the two rules miss little.
    both = [ok and row["valid_strict"] for ok, row in zip(all_passed, rows, strict=True)]
    rates.append(rate(f"valid_strict_and_{name}", both, GIVEN))
    if time_limit is not None:
        stopped = [bool(row["problem"]) for row in rows]
        note = f"after {time_limit:g} s, or by an error"
        rates.append(rate("stopped", stopped, GIVEN, note))
    return rates


def _passes_all(verdicts: dict[str, bool] | None) -> bool:
    if verdicts is None:
        return False
    return all(ok for name, ok in verdicts.items() if name != PUBLISHED_CLASH_CHECK)


def _notes(
    rows: Sequence[Row], babel_missing: str, fast: bool, time_limit: float | None
) -> list[str]:
    notes = []
    if babel_missing:
        notes.append(
            f"valid (OpenBabel) is not available: {babel_missing}. PoseBusters took RDKit's bonds."
        )
    if fast:
        notes.append(
            "Fast mode left out PoseBusters' check of the energy (50 conformers a molecule)."
        )
    if time_limit is None:
        notes.append("Without worker processes there was no time limit.")
    stopped = sum(bool(row["problem"]) for row in rows)
    if stopped:
        notes.append(
            f"{stopped} of {len(rows)} molecules were stopped (limit {time_limit:g} s); what they "
            "had not reached counts as failed."
        )
    limits = ", ".join(f"{name} {value:g}" for name, value in thresholds().items())
    notes.append(f"PoseBusters' limits ({CLASH_CHECK}: 1 - threshold_clash): {limits}.")
    return notes
