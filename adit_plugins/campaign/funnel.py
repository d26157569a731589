"""Counts from generated to stable, unique and novel, each with its denominator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from adit_plugins.campaign.settings import DONE, KNOWN_STRUCTURE
from adit_plugins.metrics.names import GIVEN
from adit_plugins.metrics.rates import Rate
from adit_plugins.metrics.stability import METASTABLE, STABLE, is_within, limit_text

Verdicts = dict[str, Any]  # the columns of a row
# What all structures of a campaign are, if they were not given in a file or from Python.
GENERATED = "generated"
PASSED = "passed pre-filter"


def base_of(recipe: Mapping[str, Any]) -> str:
    """Return what the structures of a source are, by its recipe."""
    return GENERATED if "generators" in recipe else GIVEN


class Tally:
    """Counts over the rows of a store, taken one after the other."""

    def __init__(self, rows: Iterable[Verdicts] = (), base: str = GENERATED) -> None:
        """Count rows.

        Args:
            rows: columns of the store.
            base: what all of them are: generated, or given.
        """
        self.base = base
        self.crystals: Counter[str] = Counter()
        self.molecules: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.judged = self.unreadable = self.candidates = 0  # of what kind ever
        self.potential = self.engine = self.second = ""
        for row in rows:
            self.add(row)

    def add(self, row: Verdicts) -> None:
        """Count one more."""
        self.judged += row["stage"] == DONE
        if row["kind"] == "molecule":
            self.molecules.update(_molecule(row))
            return
        self.crystals.update(_crystal(row))
        if "outcome" in row:
            self.outcomes[row["outcome"]] += 1
            self.potential = row["potential"] or self.potential
        self.engine = row.get("dft_engine", self.engine)
        self.second = row.get("confirm_potential", self.second)

    @property
    def num_crystals(self) -> int:
        """Crystals so far, readable or not."""
        return self.crystals["generated"]

    @property
    def num_molecules(self) -> int:
        """Molecules so far."""
        return self.molecules["generated"]

    def crystal_funnel(self) -> list[Rate]:
        """Counts from all to DFT.

        A total counts the rows that have this verdict: in an unfinished campaign fewer than there
        are.
        """
        n = self.crystals
        rates = [
            Rate(self.base, n["generated"], n["generated"], self.base),
            Rate("structurally valid", n["valid"], n["generated"], self.base),
            Rate("composition valid", n["composition"], n["generated"], self.base),
            Rate("unique", n["unique"], n["valid"], "structurally valid"),
            Rate("novel", n["novel"], n["unique"], "unique"),
        ]
        if n["judged"]:
            rates.append(Rate(PASSED, n["passed"], n["judged"], "novel"))
        if n["relaxations"]:
            rates += self._energy_rates(n)
        if n["asked"]:
            both = f"E hull {limit_text(METASTABLE)} by both"
            rates += [
                Rate(f"asked {self.second}", n["asked"], n["relaxed"], "relaxed"),
                Rate(both, n["confirmed"], n["asked"], "asked"),
                Rate("both agree", n["agreed"], n["asked"], "asked"),
            ]
        if n["dft"]:
            text = f"DFT formation energy by {self.engine}"
            rates.append(Rate(text, n["dft_energy"], n["dft"], "sent to DFT"))
            text = f"E hull {limit_text(METASTABLE)} by {self.engine}"
            rates.append(Rate(text, n["dft_metastable"], n["dft"], "sent to DFT"))
        return rates

    def _energy_rates(self, n: Counter[str]) -> list[Rate]:
        of = PASSED if n["judged"] else "novel"
        by = f"by {self.potential}"
        metastable = f"E hull {limit_text(METASTABLE)}"
        return [
            Rate(f"relaxed with {self.potential}", n["relaxed"], n["relaxations"], of),
            Rate("converged", n["converged"], n["relaxed"], "relaxed"),
            # Without a reference for an element there is no place on the hull: relaxed, not stable.
            Rate(f"{metastable} {by}", n["metastable"], n["relaxed"], "relaxed"),
            Rate(f"E hull {limit_text(STABLE)} {by}", n["stable"], n["relaxed"], "relaxed"),
            # What is relaxed was unique and novel; relaxation may take it to something known.
            Rate("unique, novel as relaxed", n["still_novel"], n["relaxed"], "relaxed"),
            Rate(f"{metastable}, unique, novel", n["found"], n["settled"], self.base),
        ]

    def molecule_funnel(self) -> list[Rate]:
        """Counts from all to novel."""
        n = self.molecules
        num = n["generated"]
        return [
            Rate(self.base, num, num, self.base),
            Rate("connected", n["connected"], num, self.base),
            Rate("valid (RDKit)", n["rdkit_valid"], num, self.base),
            Rate("valid (strict)", n["strict_valid"], num, self.base),
            Rate("PoseBusters, all checks", n["posebusters"], num, self.base),
            Rate("unique", n["unique"], n["compared"], "valid (RDKit)"),
            Rate("novel", n["novel"], n["unique"], "unique"),
        ]


def _crystal(row: Verdicts) -> list[str]:
    energy = row.get("energy_above_hull")
    dft_energy = row.get("dft_energy_above_hull")
    still_novel = bool(
        row.get("relaxed")
        and "relaxed_duplicate_of" not in row
        and row.get("novelty") != KNOWN_STRUCTURE
    )
    flags = {
        "generated": True,
        "valid": row.get("structure_valid"),
        "composition": row.get("composition_valid"),
        "unique": row.get("unique"),
        "novel": row.get("novel"),
        "judged": "prefiltered" in row,
        "passed": row.get("prefiltered"),
        "relaxations": "outcome" in row,
        "relaxed": row.get("relaxed"),
        "converged": row.get("converged"),
        "metastable": is_within(energy, METASTABLE),
        "still_novel": still_novel,
        "found": still_novel and is_within(energy, METASTABLE),
        "stable": is_within(energy, STABLE),
        "settled": row["stage"] == DONE,
        "unplaced": "hull_problem" in row,
        "asked": "confirm_outcome" in row,
        "confirmed": is_within(energy, METASTABLE)
        and is_within(row.get("confirm_energy_above_hull"), METASTABLE),
        "agreed": row.get("confirm_agrees"),
        "dft": "dft_outcome" in row,
        "dft_energy": "dft_formation_energy_per_atom" in row,
        "dft_metastable": is_within(dft_energy, METASTABLE),
        "quarantined": row.get("quarantined"),
        "unreadable": "problem" in row,
    }
    return [name for name, flag in flags.items() if flag]


def _molecule(row: Verdicts) -> list[str]:
    names = ("connected", "rdkit_valid", "strict_valid", "posebusters", "unique", "novel")
    found = [name for name in names if row.get(name)]
    return ["generated", *(["compared"] if "unique" in row else []), *found]
