"""DiT: the diffusion transformer that predicts clean latents from noisy ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from adit_model.config import Condition, DenoiserConfig
from adit_model.layers import (
    AtomClassEmbedding,
    Attention,
    LabelEmbedding,
    NumberEmbedding,
    TimeEmbedding,
    index_embedding,
)
from adit_model.pairs import WIDTH as PAIR_WIDTH
from adit_model.pairs import PairBias

Part = Literal["block", "distances"]


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.approximate = "tanh" if activation == "gelu_tanh" else "none"
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x `[..., width]`."""
        return self.fc2(functional.gelu(self.fc1(x), approximate=self.approximate))


def _modulation(width: int, chunks: int) -> nn.Sequential:
    """Adaptive layer norm zero: starts as the identity (arXiv 2212.09748)."""
    linear = nn.Linear(width, chunks * width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normed = functional.layer_norm(x, x.shape[-1:], eps=1e-6)
    return torch.addcmul(shift, normed, 1 + scale)


class Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the condition vector."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.width
        self.attn = Attention(width, config.num_heads)
        self.mlp = Mlp(width, config.mlp_ratio * width, config.activation)
        if config.modulation == "block":
            self.adaLN_modulation = _modulation(width, 6)
        else:
            self.modulation_offset = nn.Parameter(torch.zeros(6 * width))

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        shared: Tensor | None,
        mask: Tensor | None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """x `[batch, atoms, width]`, condition `[batch, width]`, shared `[batch, 6 width]`.

        `bias` `[batch, heads, atoms, atoms]` is added to the attention's scores.
        """
        if shared is None:
            parts = self.adaLN_modulation(condition)
        else:
            parts = shared + self.modulation_offset
        shift1, scale1, gate1, shift2, scale2, gate2 = parts.unsqueeze(1).chunk(6, dim=-1)
        x = torch.addcmul(x, gate1, self.attn(_modulate(x, shift1, scale1), mask, bias))
        return torch.addcmul(x, gate2, self.mlp(_modulate(x, shift2, scale2)))


class FinalLayer(nn.Module):
    """Modulated layer norm and the projection to the latent."""

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, latent_dim)
        self.adaLN_modulation = _modulation(width, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x `[batch, atoms, width]` -> `[batch, atoms, latent_dim]`."""
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(_modulate(x, shift, scale))


def _condition_embedder(condition: Condition, width: int) -> nn.Module:
    if condition.type == "number":
        return NumberEmbedding(condition.low, condition.high, width)
    if condition.type == "atom_class":
        return AtomClassEmbedding(condition.size, width, PAIR_WIDTH)
    return LabelEmbedding(condition.size, width)


class Denoiser(nn.Module):
    """Predicts the clean latent x1 from x_t, the time, the conditions and its last prediction."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        channels = config.latent_dim * (2 if config.self_conditioning else 1)
        self.x_embedder = nn.Linear(channels, width)
        self.t_embedder = TimeEmbedding(config.time_features, width, config.time_scale)
        self.condition_embedders = nn.ModuleDict(
            {c.name: _condition_embedder(c, width) for c in config.conditions}
        )
        if config.modulation == "shared":
            self.adaLN_modulation = _modulation(width, 6)
        if config.pair_bias:
            self.pairs = PairBias(channels, width, config.depth, config.num_heads)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.final_layer = FinalLayer(width, config.latent_dim)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        labels: dict[str, Tensor],
        previous: Tensor | None = None,
        mask: Tensor | None = None,
        without: Part | None = None,
    ) -> Tensor:
        """Predicted clean latent.

        Args:
            x: noisy latent `[batch, atoms, latent_dim]`.
            t: flow time `[batch]`, 0 noise, 1 data.
            labels: by condition name, classes `[batch]` (0: not told), numbers `[batch]` (NaN: not
                told) or classes of atoms `[batch, atoms]` (0: not told, and at padding); a missing
                one is not told.
            previous: last prediction (self-conditioning), or None for zeros.
            mask: `[batch, atoms]`, None where nothing is padded.
            without: leave out a part, for guidance: the distances' biases of the attention, or the
                middle block.

        Returns:
            `[batch, atoms, latent_dim]`, zero at padding.
        """
        condition = self.t_embedder(t)
        atoms: list[tuple[AtomClassEmbedding, Tensor]] = []
        none = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for name, embedder in self.condition_embedders.items():
            if isinstance(embedder, LabelEmbedding):
                condition = condition + embedder(labels.get(name, none))
            elif name in labels and isinstance(embedder, AtomClassEmbedding):
                atoms.append((embedder, labels[name]))
                condition = condition + embedder.structure(labels[name], mask)
            elif name in labels:
                condition = condition + embedder(labels[name])
        tokens = x
        if self.config.self_conditioning:
            tokens = torch.cat([x, torch.zeros_like(x) if previous is None else previous], dim=-1)
        h = self.x_embedder(tokens) + index_embedding(x.shape[1], self.config.width, x.device)
        for embedder, classes in atoms:
            h = h + embedder.token(classes)
        shared = self.adaLN_modulation(condition) if self.config.modulation == "shared" else None
        biases: Sequence[Tensor | None] = [None] * self.config.depth
        if self.config.pair_bias:
            told = [embedder.pairs(classes) for embedder, classes in atoms]
            found, addition = self.pairs(tokens, condition, mask, sum(told) if told else None)
            h = h + addition
            biases = biases if without == "distances" else found
        for place, (block, bias) in enumerate(zip(self.blocks, biases, strict=True)):
            if not (without == "block" and place == self.config.depth // 2):
                h = block(h, condition, shared, mask, bias)
        x1 = self.final_layer(h, condition).float()
        if self.config.prediction == "preconditioned":
            skip, out = preconditioning(t)
            x1 = skip * x + out * x1
        return x1 if mask is None else x1 * mask.unsqueeze(-1)


def preconditioning(t: Tensor) -> tuple[Tensor, Tensor]:
    """Shares `[batch, 1, 1]` of the noisy latent and of the network output in the prediction.

    EDM's c_skip and c_out (arXiv 2206.00364, table 1) for unit-variance data, written for
    x_t = (1 - t) x0 + t x1: the network's own target then has unit variance at every time.
    """
    t = t[:, None, None]
    variance = t**2 + (1 - t) ** 2
    return t / variance, (1 - t) / variance.sqrt()
