"""Optimizers of a training run: AdamW for everything, or Muon for the layers' matrices."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Muon: Any = getattr(torch.optim, "Muon", None)
OPTIMIZERS = ("adamw", "muon")
BETAS = (0.9, 0.98)


def make_optimizers(
    module: nn.Module,
    name: str,
    learning_rate: float,
    weight_decay: float,
    dtype: torch.dtype = torch.bfloat16,
) -> list[Optimizer]:
    """The optimizers that share a module's parameters among them.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) makes the update of each
    matrix inside attention and MLP orthogonal, scaled so that AdamW's learning rates hold
    (arXiv 2502.16982, section 2.2). Embeddings, modulations, heads and vectors stay with AdamW.

    Args:
        module: whose parameters they take.
        name: of `OPTIMIZERS`.
        learning_rate: at the start.
        weight_decay: of AdamW's matrices, and of Muon.
        dtype: in which Muon makes updates orthogonal, for which bf16 is precise enough; on
            processors without instructions for it, it takes many times as long.

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
        if Muon is None:
            raise ValueError(
                f"torch {torch.__version__} has no Muon; take torch 2.9 or newer, or "
                "--optimizer adamw"
            )
        optimizers.append(
            StackedMuon(
                [p for key, p in named if key in chosen],
                dtype=dtype,
                lr=learning_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


class StackedMuon(Muon or Optimizer):  # type: ignore[misc]
    """torch's Muon with the matrices of one shape in one stack.

    The same numbers from a few dozen operators a step instead of a thousand, which a GPU would
    wait for.
    """

    def __init__(
        self, parameters: list[Tensor], *, dtype: torch.dtype = torch.bfloat16, **options: Any
    ) -> None:
        super().__init__(parameters, **options)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update; matrices without a gradient are left alone."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._update(group, parameters)

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        grads = [p.grad for p in parameters if p.grad is not None]
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, buffers, group["momentum"])  # Nesterov's
        stack = torch.stack(updates).to(self.dtype)
        found = orthogonalized(stack, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * 0.2 * max(parameters[0].shape) ** 0.5  # "match_rms_adamw"
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(found.to(parameters[0].dtype).unbind()), alpha=-rate)


def orthogonalized(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Matrices `[n, rows, columns]` with all singular values near 1, in their own precision.

    Newton and Schulz' iteration as Muon does it (Jordan et al. 2024).
    """
    a, b, c = coefficients
    x = matrices
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether this is a matrix between hidden features of attention or MLP."""
    parts = name.split(".")
    layer = "blocks" in parts or "layers" in parts
    return layer and parameter.dim() == 2 and "adaLN_modulation" not in parts
