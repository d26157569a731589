"""What `--compile` does: few graphs for all sizes of structures."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from adit_model.config import Condition
from adit_model.model import ADiT

MOST_GRAPHS = 64  # torch gives a function up after 8


def compile_parts(model: ADiT, stage: str) -> None:
    """Compile the layers of a stage for any number of structures and atoms.

    Layers rather than whole networks: all of one kind share a graph, which takes seconds to make
    instead of minutes.
    """
    # Otherwise two sizes that happen to be equal in the first batch would have to be always.
    torch.fx.experimental._config.use_duck_shape = False
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    stacks = [model.autoencoder.decoder.get_submodule("transformer.layers")]
    parts: list[nn.Module] = []
    if stage == "autoencoder":
        stacks.append(model.autoencoder.encoder.get_submodule("transformer.layers"))
    elif model.denoiser is not None:
        stacks.append(model.denoiser.blocks)
        parts += [model.denoiser.pairs] if model.denoiser.config.pair_bias else []
    for part in [*parts, *(layer for stack in stacks for layer in stack.children())]:
        part.compile(dynamic=True)


def eager_if_single(size: int) -> AbstractContextManager[object]:
    """Dimensions of one would be compiled for themselves, for a few structures of one atom."""
    if size > 1:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def complete_labels(
    labels: dict[str, Tensor], conditions: tuple[Condition, ...], latent: Tensor
) -> dict[str, Tensor]:
    """All labels of a denoiser, "not told" for those that are missing, in one order.

    Each set of labels would be a graph of its own.
    """
    rows, atoms, _ = latent.shape
    shapes = {"class": (rows,), "number": (rows,), "atom_class": (rows, atoms)}
    complete = {}
    for condition in conditions:
        if condition.name in labels:
            complete[condition.name] = labels[condition.name]
        elif condition.type == "number":
            complete[condition.name] = latent.new_full(shapes[condition.type], torch.nan)
        else:
            shape = shapes[condition.type]
            complete[condition.name] = torch.zeros(shape, dtype=torch.long, device=latent.device)
    return complete
