"""Which structures of campaigns a checkpoint can learn from, and why the others are left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.config import KINDS
from adit_plugins.datasets.canonical import crystal_row
from adit_plugins.improvement.known import Known, sorted_out
from adit_plugins.improvement.reading import Campaign, Candidate

if TYPE_CHECKING:
    from ase import Atoms

    from adit_model.config import ADiTConfig
    from adit_model.data import PreparedData


class NoPickError(ValueError):
    """Nothing is left to learn from."""


@dataclass(frozen=True)
class Picks:
    """What was picked, best first, and what became of the rest.

    Attributes:
        chosen: picks by kind, crystals by their energy above the hull.
        rows: their arrays in the form of the training data, by kind.
        left_out: how many each reason left out, by kind, in the order of the checks.
        total: structures of the campaigns by kind.
    """

    chosen: dict[str, list[Candidate]]
    rows: dict[str, list[dict[str, Any]]]
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)

    def numbers(self) -> dict[str, int]:
        """Return how many were picked by kind; kinds without a pick are left out."""
        return {kind: len(each) for kind, each in self.chosen.items() if each}

    def reasons(self, kind: str) -> str:
        """Return what left structures of a kind out, in one line."""
        return ", ".join(f"{n} {reason}" for reason, n in self.left_out[kind].most_common())


def pick(
    campaigns: Sequence[Campaign], data: Sequence[PreparedData] | None, config: ADiTConfig
) -> Picks:
    """Pick what a checkpoint can learn from beside its data.

    Args:
        campaigns: as `read_campaign` gives them.
        data: prepared data that are trained on, too: a structure that is there is no pick, and
            neither is one of a kind that is not. None compares picks with each other alone.
        config: of the checkpoint.

    Raises:
        NoPickError: nothing is left; the message says what removed how many.
    """
    picks = Picks({}, {})
    for kind in KINDS:
        every = [each for c in campaigns for each in c.candidates if each.kind == kind]
        if every:
            own = None if data is None else [each for each in data if each.kind == kind]
            _pick_kind(kind, every, own, config, picks)
    if not picks.numbers():
        told = "; ".join(
            f"of {total} {kind}s {picks.reasons(kind)}" for kind, total in picks.total.items()
        )
        names = ", ".join(each.folder for each in campaigns)
        raise NoPickError(f"No pick is left in {names}: {told or 'no structure at all'}.")
    return picks


def _pick_kind(
    kind: str,
    every: list[Candidate],
    data: list[PreparedData] | None,
    config: ADiTConfig,
    picks: Picks,
) -> None:
    left = Counter(each.left_out for each in every if each.left_out)
    chosen = sorted((each for each in every if not each.left_out), key=_height)
    if data is not None and not data:
        left.update(["have no data of their kind in --data"] * len(chosen))
        chosen = []
    fitting = [each for each in chosen if _takes(each, data or (), config, left)]
    found = list(sorted_out(fitting, Known(data or ()))) if fitting else []
    left.update(each.left_out for each in found if each.left_out)
    kept, rows = [], []
    for each in sorted((each for each in found if not each.left_out), key=_height):
        row = training_row(each)
        if isinstance(row, str):
            left[f"cannot be brought to the training data's form ({row})"] += 1
        else:
            kept.append(each)
            rows.append(row | {"split": 0})
    picks.chosen[kind], picks.rows[kind] = kept, rows
    picks.left_out[kind], picks.total[kind] = left, len(every)


def _height(each: Candidate) -> float:
    return math.inf if each.energy is None else each.energy


def _takes(
    each: Candidate,
    data: Sequence[PreparedData],
    config: ADiTConfig,
    left: Counter[str],
) -> bool:
    """Whether the checkpoint knows the elements and has room for so many atoms."""
    assert each.atoms is not None
    elements = known_elements(each.kind, data, config)
    unknown = set(each.atoms.numbers.tolist()) - elements if elements else set()
    largest = len(config.size_histogram.get(each.kind, ())) - 1
    if unknown:
        left["hold elements that the checkpoint does not know"] += 1
    elif len(each.atoms) > largest:
        left[f"are larger than what the checkpoint makes ({largest} atoms)"] += 1
    return not unknown and len(each.atoms) <= largest


def known_elements(kind: str, data: Sequence[PreparedData], config: ADiTConfig) -> set[int]:
    """Atomic numbers that a checkpoint makes: its prior's, or without one those of the data."""
    if config.prior is not None and config.prior.elements.get(kind):
        return set(config.prior.elements[kind])
    return {int(z) for each in data for z in each.atomic_numbers.unique().tolist()}


def training_row(each: Candidate) -> dict[str, Any] | str:
    """Return a pick as arrays of prepared data, or why there are none.

    Crystals go through `crystal_row`, as in `adit data prepare`, and get the labels that follow
    from the structure: density and space group. The energy above the hull is no label: the
    network was told that of DFT, and picks are those on which a potential errs to the low side.
    """
    assert each.atoms is not None
    if each.kind == "crystal":
        return crystal_row(_bare(each.atoms))
    numbers, positions = each.atoms.numbers, each.atoms.positions
    order = np.argsort(numbers == 1, kind="stable")  # hydrogens last, as in QM9
    return {
        "atomic_numbers": numbers[order].tolist(),
        "coords": positions[order] - positions.mean(axis=0),
    }


def _bare(atoms: Atoms) -> Atoms:
    copied = atoms.copy()
    copied.info.clear()
    copied.calc = None
    return copied


def shares_with_picks(
    kinds: Sequence[str], shares: Sequence[float], share: float, picked: Sequence[str]
) -> tuple[float, ...]:
    """Return the shares of the data sets, then of the picks of each kind.

    Of each kind that has picks these take a part from its data sets, so that no kind gets more or
    less than before.

    Args:
        kinds: of the data sets.
        shares: of the data sets; empty for equal ones.
        share: of the picks among the atoms of their kind, between 0 and 1.
        picked: kinds of the picks.

    Raises:
        ValueError: there are not as many shares as data sets.
    """
    before = list(shares) or [1.0] * len(kinds)
    if len(before) != len(kinds):
        raise ValueError(f"--shares {shares} do not fit {len(kinds)} data sets")
    whole: Mapping[str, float] = {
        kind: sum(b for b, k in zip(before, kinds, strict=True) if k == kind) for kind in picked
    }
    left = [b * (1 - share) if k in whole else b for b, k in zip(before, kinds, strict=True)]
    return (*left, *(share * whole[kind] for kind in picked))
