"""A potential's errors on crystals of known formation energy, and its elements fitted on them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from adit_plugins.hull.energies import ConventionError, corrected_energy
from adit_plugins.hull.fitting import Row, fit
from adit_plugins.hull.references import References
from adit_plugins.hull.table import (
    UnknownElementError,
    atomic_fractions,
    formation_energy_per_atom,
)
from adit_plugins.relax.results import RelaxResult, kind_of
from adit_plugins.relax.run import RelaxerFactory, relax
from adit_plugins.structures.entries import Entry
from adit_plugins.structures.facts import formula_of

COLUMN = "formation_energy_per_atom"


@dataclass(frozen=True)
class Known:
    """A crystal of known formation energy.

    Attributes:
        name: its own, or where it stands in the file.
        atoms: at its DFT geometry.
        formation_energy_per_atom: eV/atom, on the Materials Project's scale.
        split: `train`, or another word of data that are kept for tests; empty if it has none.
    """

    name: str
    atoms: Atoms
    formation_energy_per_atom: float
    split: str = ""


def known_of(entries: Sequence[Entry]) -> Iterator[Known]:
    """Yield the crystals of a file that have a formation energy, in a column or in `info`."""
    for entry in entries:
        if entry.atoms is None or not (len(entry.atoms) and entry.atoms.pbc.all()):
            continue
        value = entry.columns.get(COLUMN, entry.atoms.info.get(COLUMN))
        try:
            energy = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(energy):
            split = entry.columns.get("split", entry.atoms.info.get("split"))
            yield Known(entry.id or entry.name, entry.atoms, energy, str(split or ""))


def choose(known: Sequence[Known], num: int, max_atoms: int, seed: int) -> list[Known]:
    """Return crystals to fit on: of the split `train`, if there is one, and of no other's formulas.

    Raises:
        ValueError: nothing is left.
    """
    if not known:
        raise ValueError(f"no crystal has {COLUMN} (eV/atom), in a column or in its info.")
    splits = {each.split for each in known} - {""}
    tests = [each for each in known if each.split != "train"] if splits else []
    kept_back = {formula_of(each.atoms) for each in tests}
    left = [
        each
        for each in known
        if (not splits or each.split == "train")
        and len(each.atoms) <= max_atoms
        and formula_of(each.atoms) not in kept_back
    ]
    if not left:
        raise ValueError(
            f"no crystal to fit on: {len(known)} have the column {COLUMN}, of these "
            f"{len(known) - len(tests)} are of the split train; of at most {max_atoms} atoms and "
            "formulas that no other split has, none."
        )
    places = np.random.default_rng(seed).permutation(len(left))[:num]
    return [left[place] for place in sorted(places)]


def measure(
    chosen: Sequence[Known],
    relaxer: str | RelaxerFactory,
    convention: str | None = None,
    log: Path | None = None,
    workers: int | None = None,
    told: Callable[[int, int], Any] = lambda done, total: None,
    about: str = "",
) -> tuple[References, Counter[str]]:
    """Compute energies at the geometries given, and fit the potential's elements.

    Args:
        chosen: the crystals.
        relaxer: as for `adit_plugins.relax.relax`.
        convention: of its energies; None for what the potential says of itself.
        log: JSON lines; energies in it are not computed again, new ones are added at once.
        workers: processes; None for one a core, 0 for none.
        told: called with how many are done, and of how many.
        about: which data these are, and how they were chosen.

    Returns:
        The corrections, and how often each reason left a crystal out.

    Raises:
        ValueError: too few can be used, the scale is unknown, or it is another.
        RelaxerError: the potential cannot be loaded.
    """
    name = relaxer if isinstance(relaxer, str) else getattr(relaxer, "__name__", repr(relaxer))
    done = _logged(log, name)
    places = [i for i, each in enumerate(chosen) if each.name not in done]
    count = len(chosen) - len(places)

    def keep(index: int, result: RelaxResult) -> None:
        nonlocal count
        each = chosen[places[index]]
        done[each.name] = _record(each.name, name, result)
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[each.name]) + "\n")
        count += 1
        told(count, len(chosen))

    relax([chosen[i].atoms for i in places], relaxer, max_steps=0, workers=workers, on_result=keep)
    records = [done[each.name] for each in chosen]
    reasons: Counter[str] = Counter(kind_of(r["reason"]) for r in records if r["energy"] is None)
    (potential, said), *others = Counter(
        (r["potential"], r["convention"]) for r in records if r["energy"] is not None
    ) or {("", ""): 1}
    if others:
        raise ValueError(f"the log holds energies of {potential} and of {others[0][0]}.")
    convention = convention or said
    if not potential:
        (reason, number), *_ = reasons.most_common()
        raise ValueError(
            f"{name} has no energy for any of {len(chosen)} crystals; of {number} of them: {reason}"
        )
    if not convention:
        raise ValueError(
            f"the energies of {potential} are on a scale that nobody has told; say --convention "
            "mp-raw (PBE and PBE+U with the Materials Project's settings) or mp2020 (with its "
            "corrections in them)."
        )
    rows = []
    for each, record in zip(chosen, records, strict=True):
        if record["energy"] is None:
            continue
        try:
            rows.append(_row(each, record["energy"], convention))
        except (ConventionError, UnknownElementError) as error:
            reasons[str(error).partition(" Known elements")[0]] += 1
    return fit(rows, potential, convention, about), reasons


def _record(name: str, relaxer: str, result: RelaxResult) -> dict[str, Any]:
    return {
        "id": name,
        "relaxer": relaxer,
        "potential": result.potential,
        "convention": result.convention,
        "energy": result.energy,
        "reason": result.reason,
    }


def _logged(log: Path | None, relaxer: str) -> dict[str, dict[str, Any]]:
    if log is None or not log.exists():
        return {}
    found = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            if record["relaxer"] == relaxer:
                found[record["id"]] = record
        except (ValueError, KeyError, TypeError):  # the last line of a run that was killed
            continue
    return found


def _row(each: Known, energy: float, convention: str) -> Row:
    corrected = corrected_energy(each.atoms, energy, convention) / len(each.atoms)
    formula = formula_of(each.atoms)
    found = formation_energy_per_atom(formula, corrected)
    return Row(formula, atomic_fractions(formula), found - each.formation_energy_per_atom)
