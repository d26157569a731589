"""The prior over elements: a small autoregressive Transformer.

A composition is a sequence. First the number of atoms; then, for a crystal, pairs of an element and
its count in rising atomic number; for a molecule, the element of each atom in the order of the
training data. Classes and numbers of the whole structure (energy above the hull, band gap, ...) may
be told, as to the denoiser.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from adit_model.config import KINDS, PriorConfig
from adit_model.layers import LabelEmbedding, NumberEmbedding

IGNORED = -100  # of cross entropy: no answer is asked for here
CHUNKS = 4  # of a batch by the length of its sequences, on a CPU

Cache = list[tuple[Tensor, Tensor]]  # keys and values of each layer so far


@dataclass(frozen=True)
class Vocabulary:
    """Places of the tokens in the prior's one table: sizes, elements, counts."""

    max_atoms: int
    num_elements: int

    @property
    def size(self) -> int:
        """Number of tokens; 0 is the start of every sequence."""
        return 1 + 2 * self.max_atoms + self.num_elements

    def num_atoms(self, values: Tensor) -> Tensor:
        """Tokens of numbers of atoms."""
        return values

    def element(self, values: Tensor) -> Tensor:
        """Tokens of atomic numbers."""
        return self.max_atoms + values

    def count(self, values: Tensor) -> Tensor:
        """Tokens of counts of an element."""
        return self.max_atoms + self.num_elements + values


class _Layer(nn.Module):
    """Pre-norm causal attention and MLP; with a cache, one new place at a time."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, dropout: float
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x `[batch, places, width]`; past keys and values `[batch, heads, places, n]`."""
        batch, places, width = x.shape
        qkv = self.in_proj(self.norm1(x)).view(batch, places, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if past is None:
            later = torch.ones(places, places, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, places, width)
        x = x + functional.dropout(self.out_proj(mixed), dropout, self.training)
        hidden = self.fc2(functional.gelu(self.fc1(self.norm2(x))))
        return x + functional.dropout(hidden, dropout, self.training), (k, v)


class Prior(nn.Module):
    """p(number of atoms, elements | kind, what is told)."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.vocabulary = Vocabulary(config.max_atoms, config.num_elements)
        self.kind = nn.Embedding(len(KINDS), width)
        self.tokens = nn.Embedding(self.vocabulary.size, width)
        self.places = nn.Embedding(config.max_atoms + 1, width)
        self.left = nn.Embedding(config.max_atoms + 1, width)  # atoms that have no element yet
        self.condition_embedders = nn.ModuleDict(
            {
                c.name: NumberEmbedding(c.low, c.high, width)
                if c.type == "number"
                else LabelEmbedding(c.size, width)
                for c in config.conditions
            }
        )
        self.layers = nn.ModuleList(_Layer(width, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.vocabulary.size)
        for table in (self.kind, self.tokens, self.places, self.left):
            nn.init.normal_(table.weight, std=0.02)

    def told(self, kind: str, num: int, labels: dict[str, Tensor]) -> Tensor:
        """What every place of a sequence is told, `[num, width]`; a missing label is not told."""
        device = self.kind.weight.device
        x = self.kind.weight[KINDS.index(kind)].expand(num, -1)
        for name, embedder in self.condition_embedders.items():
            if name in labels:
                x = x + embedder(labels[name])
            elif isinstance(embedder, LabelEmbedding):
                x = x + embedder(torch.zeros(num, dtype=torch.long, device=device))
        return x

    def forward(
        self, told: Tensor, tokens: Tensor, left: Tensor, cache: Cache | None = None
    ) -> tuple[Tensor, Cache]:
        """Scores of the next token at each place.

        Args:
            told: `[batch, width]`, see `told`.
            tokens: `[batch, places]`, the sequence so far, from 0, the start; with a cache only
                the new places.
            left: `[batch, places]`, atoms without an element after each token.
            cache: keys and values of the places before.

        Returns:
            `[batch, places, vocabulary]`, and the cache for the next place.
        """
        first = 0 if cache is None else cache[0][0].shape[2]
        index = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        x = (
            self.tokens(tokens)
            + self.left(left)
            + self.places(index.clamp_max(self.config.max_atoms))
        )
        x = x + told[:, None]
        grown: Cache = []
        for number, layer in enumerate(self.layers):
            x, pair = layer(x, None if cache is None else cache[number], self.config.dropout)
            grown.append(pair)
        return self.head(self.norm(x)), grown

    def log_probability(
        self, kind: str, numbers: Tensor, labels: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Log-likelihood of whole sequences, in nats, `[batch]`.

        Args:
            kind: of `KINDS`.
            numbers: atomic numbers `[batch, atoms]`, zero at padding, in the training order.
            labels: what is told.
        """
        tokens, left, answers = self.sequences(kind, numbers)
        scores, _ = self(self.told(kind, len(numbers), labels or {}), tokens, left)
        scores = scores.masked_fill(~self.possible(kind, tokens, left), float("-inf"))
        losses = functional.cross_entropy(
            scores.transpose(1, 2), answers, ignore_index=IGNORED, reduction="none"
        )
        return -losses.sum(dim=1)

    def possible(self, kind: str, tokens: Tensor, left: Tensor) -> Tensor:
        """Tokens that may come next at each place, `[batch, places, vocabulary]`.

        Only the kind of token that a place asks for, of elements that the kind has; in crystals
        they rise, and counts leave no atom over; in molecules hydrogens come last if they did in
        the training data.
        """
        v, device = self.vocabulary, tokens.device
        batch, places = tokens.shape
        mask = torch.zeros(batch, places, v.size, dtype=torch.bool, device=device)
        mask[:, 0, 1 : v.max_atoms + 1] = True
        elements = mask[:, :, v.max_atoms + 1 : v.max_atoms + v.num_elements + 1]
        number = torch.arange(1, v.num_elements + 1, device=device)
        known = torch.zeros(v.num_elements, dtype=torch.bool, device=device)
        known[[z - 1 for z in self.config.elements.get(kind, number.tolist())]] = True
        last = (tokens - v.max_atoms)[..., None]  # the element, where the last token is one
        if kind == "molecule":
            elements[:, 1:] = known
            if self.config.hydrogens_last:
                elements[:, 2:] &= (last[:, 2:] != 1) | (number == 1)
            return mask
        elements[:, 1] = known
        elements[:, 3::2] = known & (number > last[:, 2:-1:2][:, : len(range(3, places, 2))])
        counts = mask[:, 2::2, v.max_atoms + v.num_elements + 1 :]
        count = torch.arange(1, v.max_atoms + 1, device=device)
        remaining, element = left[:, 2::2, None], last[:, 2::2]
        counts[:] = (count < remaining) & (element < int(number[known].max()))
        counts |= count == remaining
        return mask

    def loss(self, kind: str, numbers: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Mean negative log-likelihood of compositions, in nats a structure."""
        if numbers.device.type != "cpu":  # where the launch of a kernel costs more than padding
            return -self.log_probability(kind, numbers, labels).mean()
        sizes = (numbers > 0).sum(dim=1)
        changes = (numbers[:, 1:] != numbers[:, :-1]).sum(dim=1)
        lengths = changes if kind == "crystal" else sizes
        total = torch.zeros(())
        for rows in lengths.argsort().chunk(CHUNKS):
            some = numbers[rows, : int(sizes[rows].max())]
            told = {name: values[rows] for name, values in labels.items()}
            total = total - self.log_probability(kind, some, told).sum()
        return total / len(numbers)

    def sequences(self, kind: str, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, atoms left and answers `[batch, places]` of compositions, for teaching.

        `numbers` `[batch, atoms]`, zero at padding; crystals sorted by atomic number.
        """
        v, device = self.vocabulary, numbers.device
        sizes = (numbers > 0).sum(dim=1, keepdim=True)
        if kind == "molecule":
            body, taken = v.element(numbers) * (numbers > 0), (numbers > 0).long()
        else:
            new = torch.ones_like(numbers, dtype=torch.bool)
            new[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
            new &= numbers > 0
            run = new.long().cumsum(dim=1) - 1  # which element of its structure
            most = int(run.max()) + 1
            kinds = torch.zeros(len(numbers), most, dtype=torch.long, device=device)
            counts = torch.zeros_like(kinds)
            real = numbers > 0
            rows = torch.arange(len(numbers), device=device)[:, None].expand_as(numbers)
            kinds[rows[real], run[real]] = numbers[real]
            counts.index_put_((rows[real], run[real]), torch.ones_like(run[real]), accumulate=True)
            there = kinds > 0
            body = torch.stack([v.element(kinds) * there, v.count(counts) * there], 2).flatten(1)
            taken = torch.stack([torch.zeros_like(counts), counts], 2).flatten(1)
        start = torch.zeros_like(sizes)
        whole = torch.cat([start, v.num_atoms(sizes), body], dim=1)
        left = torch.cat([start, sizes, sizes - taken.cumsum(dim=1)], dim=1)
        answers = torch.where(whole[:, 1:] > 0, whole[:, 1:], IGNORED)
        return whole[:, :-1], left[:, :-1], answers
