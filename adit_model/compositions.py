"""Compositions drawn from the prior, exact under constraints: no draw is ever thrown away.

At every step the choices that could not be completed any more are masked, so that each sequence
ends within the constraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adit_model.constraints import Constraints
from adit_model.prior import Cache, Prior

__all__ = ["Constraints", "draw_elements"]

# Rows that run through the prior together, padded to this number: the same shapes give the same
# rounding, so that a draw depends on its own random numbers alone. On GPUs a step takes as long for
# a thousand rows as for one.
CHUNKS = {"cuda": 4096, "cpu": 256}
HYDROGEN = 1
UNLIMITED = 10**6  # atoms


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
    guidance: Mapping[str, float] | None = None,
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
        guidance: scales by label, away from the prior that is not told it; 1 is none.

    Returns:
        A list of atomic numbers a draw.

    Raises:
        ValueError: the constraints cannot be met.
    """
    constraints = constraints or Constraints()
    known = prior.config.elements.get(kind) or range(1, prior.config.num_elements + 1)
    allowed = constraints.elements(frozenset(known))
    sizes = constraints.sizes(kind, histogram, prior.config.max_atoms)
    if allowed <= set(constraints.most):
        room = sum(constraints.most[z] for z in allowed)
        if room < sizes[0]:
            raise ValueError(
                f"no {kind} fits: it may have {room} atoms at most, and needs {sizes[0]} or more"
            )
        sizes = [size for size in sizes if size <= room]
    for size in () if num_atoms is None else set(num_atoms):
        if size not in sizes:
            raise ValueError(
                f"num_atoms={size} does not fit the request; possible: "
                + ", ".join(map(str, sizes))
            )
    result: list[list[int]] = []
    chunk = rows_at_once(prior)
    for start in range(0, len(streams), chunk):
        chosen = slice(start, start + chunk)
        part = _Draw(
            prior, kind, allowed, constraints, sizes, [list(s) for s in streams[chosen]],
            {name: values[chosen] for name, values in (labels or {}).items()}, temperature,
            guidance or {},
        )  # fmt: skip
        result += part.run(None if num_atoms is None else list(num_atoms[chosen]))
    return result


def rows_at_once(prior: Prior) -> int:
    """How many draws run through a prior together, on its device."""
    return CHUNKS.get(prior.kind.weight.device.type, CHUNKS["cpu"])


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
        guidance: Mapping[str, float],
    ) -> None:
        self.prior, self.kind, self.constraints = prior, kind, constraints
        self.sizes, self.temperature = sizes, temperature
        self.num = len(streams)
        self.random = [np.random.default_rng(stream) for stream in streams]
        # Atoms of each element that must still come, and that may.
        self.need = [dict(constraints.needs) for _ in streams]
        room = np.zeros(prior.config.num_elements + 1, dtype=np.int64)
        room[list(allowed)] = UNLIMITED
        for z, most in constraints.most.items():
            if z in allowed:
                room[z] = most
        self.room = np.tile(room, (self.num, 1))
        self.bounded = bool(constraints.most or constraints.formula or constraints.num_elements)
        self.left = np.zeros(self.num, dtype=np.int64)
        self.electrons = np.zeros(self.num, dtype=np.int64)
        self.numbers: list[list[int]] = [[] for _ in streams]
        self.last = np.zeros(self.num, dtype=np.int64)
        device = prior.kind.weight.device
        self.rows = rows_at_once(prior)
        padded = {
            name: torch.cat([values, values[:1].expand(self.rows - self.num)]).to(device)
            for name, values in labels.items()
        }
        self.told = prior.told(kind, self.rows, padded)
        self.cache: Cache | None = None
        # What the prior is told without each guided label, its scale and its own cache.
        self.weaker: list[tuple[Tensor, float, Cache | None]] = []
        for label, scale in guidance.items():
            if scale != 1.0:
                others = {name: values for name, values in padded.items() if name != label}
                self.weaker.append((prior.told(kind, self.rows, others), scale, None))

    def run(self, num_atoms: list[int] | None) -> list[list[int]]:
        """Draw every sequence to its end."""
        v = self.prior.vocabulary
        scores = self._step(np.zeros(self.num, dtype=np.int64))
        if num_atoms is None:
            mask = np.zeros((self.num, v.size), dtype=bool)
            mask[:, self.sizes] = True
            self._weigh_sizes(scores)
            num_atoms = self._pick(scores, mask).tolist()
        self.left[:] = num_atoms
        unit = sum(self.constraints.formula.values())
        if unit:
            for row, size in enumerate(num_atoms):
                self.need[row] = self._formula(size)
                self.room[row] = 0
                self.room[row, list(self.need[row])] = list(self.need[row].values())
        tokens = np.array(num_atoms)
        while self.left.any():
            scores = self._step(tokens)
            elements = self._pick(scores, self._element_mask()) - v.max_atoms
            elements = np.where(self.left > 0, elements, 0)
            tokens = np.where(elements > 0, v.max_atoms + elements, 0)
            if self.kind == "molecule":
                self._place(elements, np.ones(self.num, dtype=np.int64))
                continue
            scores = self._step(tokens)
            offset = v.max_atoms + v.num_elements
            counts = self._pick(scores, self._count_mask(elements, offset)) - offset
            counts = np.where(elements > 0, counts, 0)
            self._place(elements, counts)
            tokens = np.where(counts > 0, offset + counts, 0)
        return self.numbers

    def _step(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores after one more token of every sequence, `[num, vocabulary]`."""
        column = np.zeros((self.rows, 2), dtype=np.int64)
        column[: self.num, 0], column[: self.num, 1] = tokens, self.left
        both = torch.from_numpy(column).to(self.told.device)
        scores, self.cache = self.prior(self.told, both[:, :1], both[:, 1:], self.cache)
        # Classifier-free guidance (arXiv 2207.12598) of each label by itself.
        full = scores
        for place, (told, scale, cache) in enumerate(self.weaker):
            weak, cache = self.prior(told, both[:, :1], both[:, 1:], cache)
            self.weaker[place] = (told, scale, cache)
            scores = scores + (scale - 1.0) * (full - weak)
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

    def _formula(self, size: int) -> dict[int, int]:
        """Atoms of each element in a formula's multiple of this size."""
        times = size // sum(self.constraints.formula.values())
        return {z: n * times for z, n in self.constraints.formula.items()}

    def _only(self, size: int) -> dict[int, int] | None:
        """The composition of a size where there is but one, by element."""
        if self.constraints.formula:
            return self._formula(size)
        need = self.constraints.needs
        free = [z for z in np.flatnonzero(self.room[0]) if self.room[0, z] > need.get(int(z), 0)]
        if len(free) != 1:
            return None
        rest = size - sum(need.values())
        return need | ({int(free[0]): need.get(int(free[0]), 0) + rest} if rest else {})

    def _weigh_sizes(self, scores: NDArray[np.float64]) -> None:
        """Where the size decides the composition, its likelihood counts as well."""
        if self.kind == "molecule" or len(self.sizes) < 2:
            return
        for size in self.sizes:
            counts = self._only(size)
            if counts is None:
                return
            numbers = [z for z, n in sorted(counts.items()) for _ in range(n)]
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
            self.room[row, element] -= count
            still = self.need[row].pop(element, 0) - count
            if still > 0:
                self.need[row][element] = still
        self.electrons += elements * counts
        self.last = np.where(elements > 0, elements, self.last)
        self.left -= np.where(elements > 0, counts, 0)

    def _element_mask(self) -> NDArray[np.bool_]:
        """Tokens of elements that each sequence can go on with, `[num, vocabulary]`."""
        v = self.prior.vocabulary
        mask = np.zeros((self.num, v.size), dtype=bool)
        choose = self._next_of_molecule if self.kind == "molecule" else self._next_of_crystal
        columns = slice(v.max_atoms + 1, v.max_atoms + v.num_elements + 1)
        # Most requests ask for no element and no number of them: all sequences at once.
        mask[:, columns] = self._free()[:, 1:] & (self.left > 0)[:, None]
        for row in np.flatnonzero(self.left).tolist():
            if self.bounded or self.need[row]:
                mask[row, columns] = choose(row)[1:]
        return mask

    def _free(self) -> NDArray[np.bool_]:
        """Elements that sequences which need none can go on with, `[num, 1 + elements]`."""
        possible = self.room > 0
        number, last = np.arange(self.room.shape[1]), self.last[:, None]
        if self.kind == "crystal":
            return possible & (number > last)
        if self.prior.config.hydrogens_last:
            possible &= (last != HYDROGEN) | (number <= HYDROGEN)
            possible[:, HYDROGEN] &= self.room[:, HYDROGEN] >= self.left
        return self._closed(possible, np.arange(self.num))

    def _next_of_crystal(self, row: int) -> NDArray[np.bool_]:
        need, room, left = self.need[row], self.room[row], self.left[row]
        possible = room > 0
        possible[: self.last[row] + 1] = False
        possible &= room[::-1].cumsum()[::-1] >= left  # only it and later ones follow
        number = self.constraints.num_elements
        if number is not None:
            others = number - len(set(self.numbers[row])) - 1  # that come after this one
            there = (room > 0).astype(np.int64)
            named = np.isin(np.arange(len(room)), list(need))
            possible &= there[::-1].cumsum()[::-1] - there >= others
            possible &= others - len(need) + named >= 0
            for z in np.flatnonzero(possible).tolist() if self.constraints.most else ():
                possible[z] = self._most_of(row, z, others) >= left - room[z]
        if need:
            possible[min(need) + 1 :] = False  # it could not come later any more
            if left == sum(need.values()):
                possible[:] = False
                possible[min(need)] = True
        return possible

    def _next_of_molecule(self, row: int) -> NDArray[np.bool_]:
        need, room, left = self.need[row], self.room[row], self.left[row]
        possible = room > 0
        seen = set(self.numbers[row])
        wanted, number = seen | set(need), self.constraints.num_elements
        new = 0 if number is None else number - len(wanted)  # not named, still to come
        if number is not None and not new:
            possible &= np.isin(np.arange(len(room)), list(wanted))
        if left == sum(need.values()) + new:
            fits = np.isin(np.arange(len(room)), list(need))
            if new:
                fits |= ~np.isin(np.arange(len(room)), list(seen))
            possible &= fits
        if self.prior.config.hydrogens_last:
            if self.last[row] == HYDROGEN:
                possible[HYDROGEN + 1 :] = False
            elif set(need) - {HYDROGEN} or room[HYDROGEN] < left or new > (HYDROGEN not in wanted):
                possible[HYDROGEN] = False  # heavy atoms that are still to come would come too late
        return self._closed(possible[None], np.array([row]))[0]

    def _most_of(self, row: int, element: int, number: int) -> int:
        """Atoms for which a number of elements after this one have room; -1 if there are fewer.

        Those that must come are among them.
        """
        need = set(self.need[row]) - {element}
        room = self.room[row, element + 1 :]
        free = sorted(int(n) for i, n in enumerate(room, element + 1) if n > 0 and i not in need)
        more = number - len(need)
        if more > len(free):
            return -1
        return sum(int(self.room[row, z]) for z in need) + sum(free[len(free) - more :])

    def _closed(self, possible: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of possible elements `[rows, 1 + elements]` those that let electrons pair, if any."""
        if not self.prior.config.even_electrons:
            return possible
        electrons, left = self.electrons[rows], self.left[rows]
        even = (electrons[:, None] + np.arange(possible.shape[1])) % 2 == 0
        closing = even | (left > 1)[:, None]
        if self.prior.config.hydrogens_last:
            # The first hydrogen is followed by hydrogens alone.
            first = self.last[rows] != HYDROGEN
            closing[first, HYDROGEN] = (electrons + left)[first] % 2 == 0
        closed = possible & closing
        return np.where(closed.any(axis=1, keepdims=True), closed, possible)

    def _count_mask(self, elements: NDArray[np.int64], offset: int) -> NDArray[np.bool_]:
        """Tokens of counts that each sequence can go on with."""
        mask = np.zeros((self.num, self.prior.vocabulary.size), dtype=bool)
        for row in np.flatnonzero(elements).tolist():
            element, left, need = int(elements[row]), int(self.left[row]), self.need[row]
            others = sum(need.values()) - need.get(element, 0)
            later = int(self.room[row, element + 1 :].sum())
            if (number := self.constraints.num_elements) is not None:
                following = number - len(set(self.numbers[row])) - 1
                others += following - len(set(need) - {element})
                later = self._most_of(row, element, following)
            least = max(need.get(element, 1), left - later)
            most = min(int(self.room[row, element]), left - others)
            mask[row, offset + least : offset + most + 1] = True
        return mask
