"""Optimizers of a training run: AdamW for everything, or Muon for the layers' matrices."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

OPTIMIZERS = ("adamw", "muon")
BETAS = (0.9, 0.98)


def make_optimizers(
    module: nn.Module, name: str, learning_rate: float, weight_decay: float
) -> list[Optimizer]:
    """The optimizers that share a module's parameters among them.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) makes the update of each
    matrix inside attention and MLP orthogonal, scaled so that AdamW's learning rates hold
    (arXiv 2502.16982, section 2.2). Embeddings, modulations, heads and vectors stay with AdamW.

    Raises:
        ValueError: the name is not known, or this torch has no Muon (2.9 is the first).
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"No optimizer {name!r}. Known: {', '.join(OPTIMIZERS)}.")
    named = list(module.named_parameters())
    chosen = {key for key, p in named if name == "muon" and _is_hidden(key, p)}
    rest = [p for key, p in named if key not in chosen]
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = [
        torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)
    ]
    if name == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"torch {torch.__version__} has no Muon; take torch 2.9 or newer, or "
                "--optimizer adamw"
            )
        optimizers.append(
            torch.optim.Muon(
                [p for key, p in named if key in chosen],
                lr=learning_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether this is a matrix between hidden features of attention or MLP."""
    parts = name.split(".")
    layer = "blocks" in parts or "layers" in parts
    return layer and parameter.dim() == 2 and "adaLN_modulation" not in parts
