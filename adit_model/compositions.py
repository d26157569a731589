"""Compositions drawn from the prior, exact under constraints: no draw is ever thrown away.

At every step the choices that could not be completed any more are masked, so that each sequence
ends within the constraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adit_model.elements import named
from adit_model.prior import Cache, Prior

# Rows that run through the prior together, padded to this number: the same shapes give the same
# rounding, so that a draw depends on its own random numbers alone.
CHUNK = 256
HYDROGEN = 1


@dataclass(frozen=True)
class Constraints:
    """What a composition must be; the conditions add up.

    Attributes:
        allowed: atomic numbers that may appear; None is all.
        required: atomic numbers of which there must be at least one atom.
        formula: atoms of each element in one formula, by atomic number: a crystal holds a whole
            multiple of it, a molecule just it.
    """

    allowed: frozenset[int] | None = None
    required: frozenset[int] = frozenset()
    formula: Mapping[int, int] = field(default_factory=dict)

    def elements(self, known: frozenset[int]) -> frozenset[int]:
        """Elements that may appear, of those that a model knows.

        Raises:
            ValueError: none is left, or a required one is not among them.
        """
        allowed = known if self.allowed is None else known & self.allowed
        if self.formula:
            allowed &= frozenset(self.formula)
        missing = (self.required | frozenset(self.formula)) - allowed
        if missing:
            raise ValueError(
                f"no composition fits: {named(missing)} {'is' if len(missing) == 1 else 'are'} "
                f"asked for, and ruled out or not in the training data ({named(known)})"
            )
        if not allowed:
            raise ValueError(
                f"no composition fits: of {named(self.allowed or frozenset())}, which may appear, "
                f"none is in the training data ({named(known)})"
            )
        return allowed

    def sizes(self, kind: str, histogram: Sequence[int], max_atoms: int) -> list[int]:
        """Numbers of atoms that a composition can have, of those in the training data.

        Raises:
            ValueError: there is none.
        """
        seen = [n for n, count in enumerate(histogram) if count and n <= max_atoms]
        unit, least = sum(self.formula.values()), max(1, len(self.required))
        fits = [n for n in seen if n >= least]
        if unit:
            fits = [n for n in fits if (n % unit == 0 if kind == "crystal" else n == unit)]
        if not fits:
            atoms = f"{'a multiple of ' if kind == 'crystal' else ''}{unit}" if unit else least
            raise ValueError(
                f"no {kind} fits: it needs {'' if unit else 'at least '}{atoms} atoms, and the "
                f"model was trained on {kind}s of "
                + (f"{seen[0]} to {seen[-1]} atoms" if seen else "no size")
            )
        return fits


@torch.no_grad()
def draw_elements(
    prior: Prior,
    kind: str,
    streams: Sequence[Sequence[int]],
    histogram: Sequence[int],
    *,
    constraints: Constraints | None = None,
    num_atoms: Sequence[int] | None = None,
    labels: dict[str, Tensor] | None = None,
    temperature: float = 1.0,
) -> list[list[int]]:
    """Atomic numbers of structures, in the order of the training data.

    Args:
        prior: the network.
        kind: of `KINDS`.
        streams: seeds of each draw's own random numbers.
        histogram: structures of 0, 1, 2, ... atoms in the training data; other sizes never occur.
        constraints: what every composition must be.
        num_atoms: of each draw; drawn too by default.
        labels: what is told, by condition name, one value a draw.
        temperature: below 1 favours likely compositions.

    Returns:
        A list of atomic numbers a draw.

    Raises:
        ValueError: the constraints cannot be met.
    """
    constraints = constraints or Constraints()
    known = prior.config.elements.get(kind) or range(1, prior.config.num_elements + 1)
    allowed = constraints.elements(frozenset(known))
    sizes = constraints.sizes(kind, histogram, prior.config.max_atoms)
    for size in () if num_atoms is None else set(num_atoms):
        if size not in sizes:
            raise ValueError(
                f"num_atoms={size} does not fit the request; possible: "
                + ", ".join(map(str, sizes))
            )
    result: list[list[int]] = []
    for start in range(0, len(streams), CHUNK):
        chosen = slice(start, start + CHUNK)
        part = _Draw(
            prior, kind, allowed, constraints, sizes, [list(s) for s in streams[chosen]],
            {name: values[chosen] for name, values in (labels or {}).items()}, temperature,
        )  # fmt: skip
        result += part.run(None if num_atoms is None else list(num_atoms[chosen]))
    return result


class _Draw:
    """One chunk of draws: the sequences so far and what each may still become."""

    def __init__(
        self,
        prior: Prior,
        kind: str,
        allowed: frozenset[int],
        constraints: Constraints,
        sizes: list[int],
        streams: list[list[int]],
        labels: dict[str, Tensor],
        temperature: float,
    ) -> None:
        self.prior, self.kind, self.constraints = prior, kind, constraints
        self.sizes, self.temperature = sizes, temperature
        self.num = len(streams)
        self.random = [np.random.default_rng(stream) for stream in streams]
        self.allowed = np.zeros(prior.config.num_elements + 1, dtype=bool)
        self.allowed[list(allowed)] = True
        self.missing = [set(constraints.required) for _ in streams]  # required, not there yet
        self.open: list[dict[int, int]] = [{} for _ in streams]  # of the formula, not placed yet
        self.left = np.zeros(self.num, dtype=np.int64)
        self.numbers: list[list[int]] = [[] for _ in streams]
        self.last = np.zeros(self.num, dtype=np.int64)
        device = prior.kind.weight.device
        padded = {
            name: torch.cat([values, values[:1].expand(CHUNK - self.num)]).to(device)
            for name, values in labels.items()
        }
        self.told = prior.told(kind, CHUNK, padded)
        self.cache: Cache | None = None

    def run(self, num_atoms: list[int] | None) -> list[list[int]]:
        """Draw every sequence to its end."""
        v = self.prior.vocabulary
        scores = self._step(np.zeros(self.num, dtype=np.int64))
        if num_atoms is None:
            mask = np.zeros((self.num, v.size), dtype=bool)
            mask[:, self.sizes] = True
            self._weigh_formulas(scores)
            num_atoms = self._pick(scores, mask).tolist()
        self.left[:] = num_atoms
        unit = sum(self.constraints.formula.values())
        if unit:
            for row, size in enumerate(num_atoms):
                times = size // unit
                self.open[row] = {z: n * times for z, n in self.constraints.formula.items()}
                self.missing[row] = set(self.open[row])
        tokens = np.array(num_atoms)
        while self.left.any():
            scores = self._step(tokens)
            elements = self._pick(scores, self._element_mask()) - v.max_atoms
            elements = np.where(self.left > 0, elements, 0)
            if self.kind == "molecule":
                self._place(elements, np.ones(self.num, dtype=np.int64))
                tokens = np.where(elements > 0, v.max_atoms + elements, 0)
                continue
            scores = self._step(np.where(elements > 0, v.max_atoms + elements, 0))
            offset = v.max_atoms + v.num_elements
            counts = self._pick(scores, self._count_mask(elements, offset)) - offset
            counts = np.where(elements > 0, counts, 0)
            self._place(elements, counts)
            tokens = np.where(counts > 0, offset + counts, 0)
        return self.numbers

    def _step(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores after one more token of every sequence, `[num, vocabulary]`."""
        column = np.zeros((CHUNK, 2), dtype=np.int64)
        column[: self.num, 0], column[: self.num, 1] = tokens, self.left
        both = torch.from_numpy(column).to(self.told.device)
        scores, self.cache = self.prior(self.told, both[:, :1], both[:, 1:], self.cache)
        return scores[: self.num, 0].double().cpu().numpy() / self.temperature

    def _pick(self, scores: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """One token a row, each from its own random numbers; rows that have ended get any."""
        mask = mask | ~mask.any(axis=1, keepdims=True)
        scores = np.where(mask, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        cumulative = weights.cumsum(axis=1)
        draws = np.array([random.random() for random in self.random]) * cumulative[:, -1]
        # The first place whose sum is above the draw has a weight, even where rounding is unkind.
        return (cumulative > draws[:, None]).argmax(axis=1)

    def _weigh_formulas(self, scores: NDArray[np.float64]) -> None:
        """Where the size decides the composition, its likelihood counts as well."""
        if self.kind == "molecule" or not self.constraints.formula or len(self.sizes) < 2:
            return
        unit = sum(self.constraints.formula.values())
        for size in self.sizes:
            numbers = sorted(
                z for z, n in self.constraints.formula.items() for _ in range(n * size // unit)
            )
            tokens, left, answers = self.prior.sequences("crystal", torch.tensor([numbers]))
            tokens, left, answers = (x.to(self.told.device) for x in (tokens, left, answers))
            found, _ = self.prior(self.told[:1], tokens, left)
            found = found.masked_fill(~self.prior.possible("crystal", tokens, left), float("-inf"))
            chances = found.log_softmax(dim=-1)[0, 1:].gather(1, answers[0, 1:, None])
            scores[:, size] += float(chances.sum()) / self.temperature

    def _place(self, elements: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        for row in np.flatnonzero(elements):
            element, count = int(elements[row]), int(counts[row])
            self.numbers[row] += [element] * count
            self.missing[row].discard(element)
            if self.open[row]:
                self.open[row][element] -= count
                if self.kind == "molecule" and self.open[row][element] > 0:
                    self.missing[row].add(element)
        self.last = np.where(elements > 0, elements, self.last)
        self.left -= np.where(elements > 0, counts, 0)

    def _element_mask(self) -> NDArray[np.bool_]:
        """Tokens of elements that each sequence can go on with, `[num, vocabulary]`."""
        v = self.prior.vocabulary
        mask = np.zeros((self.num, v.size), dtype=bool)
        choose = self._next_of_molecule if self.kind == "molecule" else self._next_of_crystal
        columns = slice(v.max_atoms + 1, v.max_atoms + v.num_elements + 1)
        if self.kind == "crystal":  # most requests: any allowed element beyond the last
            later = np.arange(1, v.num_elements + 1) > self.last[:, None]
            mask[:, columns] = self.allowed[1:] & later & (self.left > 0)[:, None]
        for row in np.flatnonzero(self.left).tolist():
            if self.kind == "molecule" or self.missing[row]:
                mask[row, columns] = choose(row)[1:]
        return mask

    def _next_of_crystal(self, row: int) -> NDArray[np.bool_]:
        possible = self.allowed.copy()
        possible[: self.last[row] + 1] = False
        missing = self.missing[row]
        if missing:
            possible[min(missing) + 1 :] = False  # it could not come later any more
            if self.left[row] == len(missing) or self.open[row]:
                possible[:] = False
                possible[min(missing)] = True
        return possible

    def _next_of_molecule(self, row: int) -> NDArray[np.bool_]:
        possible = self.allowed.copy()
        missing, amounts = self.missing[row], self.open[row]
        if amounts:
            possible[:] = False
            possible[[z for z, n in amounts.items() if n > 0]] = True
        elif self.left[row] == len(missing):
            possible[:] = False
            possible[list(missing)] = True
        if self.prior.config.hydrogens_last:
            if self.last[row] == HYDROGEN:
                possible[HYDROGEN + 1 :] = False
            elif missing - {HYDROGEN}:
                possible[HYDROGEN] = False  # heavy atoms that are still to come would come too late
        return possible

    def _count_mask(self, elements: NDArray[np.int64], offset: int) -> NDArray[np.bool_]:
        """Tokens of counts that each sequence can go on with."""
        mask = np.zeros((self.num, self.prior.vocabulary.size), dtype=bool)
        for row in np.flatnonzero(elements):
            element, left = int(elements[row]), int(self.left[row])
            if self.open[row]:
                mask[row, offset + self.open[row][element]] = True
                continue
            most = left - len(self.missing[row] - {element})
            mask[row, offset + 1 : offset + most + 1] = True
            if not self.allowed[element + 1 :].any():
                mask[row] = False
                mask[row, offset + left] = True
        return mask
