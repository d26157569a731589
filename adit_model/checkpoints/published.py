"""The published ADiT checkpoint (arXiv 2503.03965): its names, its sizes, to and from our modules.

The authors' file holds the same network as `ADiT` with the published options; only the two tables
of class labels are named differently. Sizes are read from the shapes of the weights, never from
the pickled configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adit_model.autoencoder import Autoencoder
from adit_model.checkpoints.folder import CheckpointError
from adit_model.checkpoints.lightning_file import LightningFile
from adit_model.checkpoints.restricted_pickle import StoredTensor
from adit_model.config import (
    KINDS,
    ADiTConfig,
    AutoencoderConfig,
    Condition,
    DenoiserConfig,
    published,
)
from adit_model.denoiser import Denoiser
from adit_model.outputs import replacing

LICENCE = "CC BY-NC 4.0"
HEAD_WIDTH = 64  # of every published size; the number of heads is in no shape
# Atoms a structure in the training sets; the file does not hold them, but sizes are drawn from
# them. Counts of 0, 1, 2, ... atoms in MP-20 and QM9.
SIZE_HISTOGRAM = {
    "crystal": [
        0, 131, 1152, 1129, 8341, 2591, 4522, 1218, 4275, 1817, 5224, 703, 5322, 1180, 3575, 807,
        3639, 490, 2919, 571, 4670,
    ],
    "molecule": [
        0, 0, 0, 2, 4, 5, 12, 20, 65, 172, 483, 1053, 2189, 4027, 6758, 10216, 13824, 16969, 17442,
        18146, 12403, 13166, 4428, 6362, 712, 1923, 59, 356, 0, 35,
    ],
}  # fmt: skip
# Published name -> ours; all other names are the same.
_TABLES = {
    "denoiser.dataset_embedder.embedding_table.weight": (
        "denoiser.condition_embedders.kind.embedding_table.weight"
    ),
    "denoiser.spacegroup_embedder.embedding_table.weight": (
        "denoiser.condition_embedders.space_group.embedding_table.weight"
    ),
}
_STAGE_ONE = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def load(
    path: Path, name: str, num_heads: int | tuple[int, int] | None = None
) -> tuple[ADiTConfig, dict[str, Tensor], str, list[str]]:
    """Read a published `.ckpt` file (both stages, or the autoencoder alone); runs nothing in it.

    Args:
        path: the file.
        name: the model's name, the first part of sample ids.
        num_heads: attention heads, one number or (autoencoder, denoiser); by default one per 64
            of the width.

    Returns:
        The configuration, float32 tensors by our names, 12 hexadecimal digits that identify the
        weights, and the names in the file that belong to no network.

    Raises:
        CheckpointError: the file is damaged, or a weight is missing or has a wrong shape.
    """
    with LightningFile(path) as file:
        given = file.content.get("state_dict")
        if not isinstance(given, dict):
            raise CheckpointError(f"{path} has no state_dict, so it is no Lightning checkpoint.")
        stored = _full_names(given)
        try:
            config = _config(stored, name, num_heads)
            shapes = expected_shapes(config)
        except (ValueError, RuntimeError, OverflowError) as error:
            raise CheckpointError(f"{path} is not the published network: {error}") from error
        _check_shapes(path, stored, shapes)
        stored = {key: stored[key] for key in shapes} | _averages(file.content, given, shapes)
        tensors = {_TABLES.get(key, key): file.read(stored[key], key) for key in shapes}
    for key, tensor in tensors.items():
        extremes = tensor.aminmax()  # either is NaN if any number is; needs no memory
        if not (extremes.min.isfinite() and extremes.max.isfinite()):
            raise CheckpointError(f"{path}: {key} holds numbers that are not finite.")
    identity = _identity(tensors)
    tensors |= {
        "latent_mean": torch.zeros(config.autoencoder.latent_dim),
        "latent_std": torch.ones(config.autoencoder.latent_dim),
    }
    full = given if any(str(key).startswith("autoencoder.") for key in given) else stored
    return config, tensors, identity, sorted(str(key) for key in full.keys() - shapes.keys())


def expected_shapes(config: ADiTConfig) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every weight; takes no memory."""
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {"autoencoder": Autoencoder(config.autoencoder)}
        if config.denoiser is not None:
            parts["denoiser"] = Denoiser(config.denoiser)
    own = nn.ModuleDict(parts).state_dict()
    theirs = {ours: name for name, ours in _TABLES.items()}
    return {theirs.get(key, key): tuple(tensor.shape) for key, tensor in own.items()}


def _full_names(given: Mapping[Any, Any]) -> dict[str, StoredTensor]:
    """Tensors by full name; the autoencoder's own file leaves out its prefix."""
    tensors = {k: v for k, v in given.items() if isinstance(k, str) and isinstance(v, StoredTensor)}
    if any(key.startswith(("autoencoder.", "denoiser.")) for key in tensors):
        return tensors
    return {f"autoencoder.{k}": v for k, v in tensors.items() if k.startswith(_STAGE_ONE)}


def _config(
    stored: Mapping[str, StoredTensor], name: str, num_heads: int | tuple[int, int] | None
) -> ADiTConfig:
    """The configuration that the shapes describe."""

    def size(key: str, axis: int) -> int:
        if key not in stored:
            raise ValueError(f"{key} is missing")
        if len(stored[key].shape) != 2:
            raise ValueError(f"{key} must be a matrix; got shape {stored[key].shape}")
        return stored[key].shape[axis]

    heads = (num_heads, num_heads) if isinstance(num_heads, int) else num_heads or (None, None)
    coder = "autoencoder.encoder."
    num_types, width = (size(f"{coder}atom_type_embedder.weight", axis) for axis in (0, 1))
    autoencoder = AutoencoderConfig(
        width=width,
        num_heads=heads[0] or _default_heads(width),
        encoder_depth=_depth(stored, f"{coder}transformer.layers."),
        decoder_depth=_depth(stored, "autoencoder.decoder.transformer.layers."),
        mlp_width=size(f"{coder}transformer.layers.0.linear1.weight", 0),
        latent_dim=size("autoencoder.post_quant_conv.weight", 1),
        num_types=num_types,
    )
    denoiser = None
    if any(key.startswith("denoiser.") for key in stored):
        width = size("denoiser.x_embedder.weight", 0)
        kind, space_group = (size(key, 0) - 1 for key in _TABLES)
        denoiser = DenoiserConfig(
            width=width,
            depth=_depth(stored, "denoiser.blocks."),
            num_heads=heads[1] or _default_heads(width),
            mlp_ratio=size("denoiser.blocks.0.mlp.fc1.weight", 0) // max(1, width),
            latent_dim=size("denoiser.final_layer.linear.weight", 0),
            time_features=size("denoiser.t_embedder.mlp.0.weight", 1),
            conditions=(
                Condition("kind", kind, dropout=0.1),
                Condition("space_group", space_group),
            ),
        )
    return ADiTConfig(
        name=name,
        autoencoder=autoencoder,
        denoiser=denoiser,
        flow=published().flow,
        size_histogram=SIZE_HISTOGRAM,
    )


def _default_heads(width: int) -> int:
    heads = max(1, width // HEAD_WIDTH)
    if width % heads:
        raise ValueError(
            f"width {width} does not divide into {heads} heads of about {HEAD_WIDTH}: "
            "pass num_heads"
        )
    return heads


def _depth(stored: Iterable[str], prefix: str) -> int:
    indices = {key[len(prefix) :].split(".")[0] for key in stored if key.startswith(prefix)}
    if not indices:
        raise ValueError(f"{prefix}0 is missing")
    return len(indices)  # a gap shows as missing names later


def _check_shapes(
    path: Path, stored: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    missing = sorted(shapes.keys() - stored.keys())
    wrong = [
        f"{key} {stored[key].shape} instead of {shape}"
        for key, shape in shapes.items()
        if key in stored and stored[key].shape != shape
    ]
    for title, names in (("missing", missing), ("of a wrong shape", wrong)):
        if names:
            raise CheckpointError(
                f"{path} is not the published network: {len(names)} weights are {title}: "
                f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            )
    held = {stored[key].key: stored[key].num_stored for key in shapes}
    claimed = sum(stored[key].numel for key in shapes)
    if claimed > sum(held.values()):
        raise CheckpointError(f"{path}: {claimed} weights claim {sum(held.values())} numbers.")


def _averages(
    content: Mapping[Any, Any], given: Mapping[Any, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, StoredTensor]:
    """Exponential moving averages in the file, by published name; what was evaluated.

    Known places: a dictionary `ema_state_dict` beside the weights or in a callback's state, and
    lists in the order of the parameters, as NeMo's callback (`ema_weights`) and optimiser (`ema`)
    keep them. A file named `-EMA.ckpt` has them as its main weights.
    """
    places: list[Any] = [content.get("ema_state_dict")]
    callbacks = content.get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        if isinstance(state, dict):
            places += [state.get("ema_state_dict"), state.get("ema_weights")]
    optimizers = content.get("optimizer_states")
    for state in optimizers if isinstance(optimizers, list) else ():
        if isinstance(state, dict):
            places.append(state.get("ema"))
    weights = [key for key, value in given.items() if isinstance(value, StoredTensor)]
    orders = [[k for k in weights if str(k).startswith("denoiser.")], list(shapes), weights]
    for place in places:
        named = place if isinstance(place, dict) else _named(place, orders, given)
        found = {
            key: tensor
            for key, tensor in _full_names(named).items()
            if key in shapes and tensor.shape == shapes[key]
        }
        if found:
            return found
    return {}


def _named(place: Any, orders: list[list[str]], given: Mapping[Any, Any]) -> dict[str, Any]:
    """Give a list of averages the names of the weights of the same shapes in the same order."""
    if not isinstance(place, list | tuple):
        return {}
    shapes = [t.shape for t in place if isinstance(t, StoredTensor)]
    for names in orders:
        if names and shapes == [given[n].shape for n in names if n in given]:
            return dict(zip(names, place, strict=True))
    return {}


def _identity(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].numpy().data)
    return digest.hexdigest()[:12]


def export(config: ADiTConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a network as the published file, for tools that read that one.

    Args:
        config: its options must be the published ones; sizes are free.
        tensors: weights by our names, as `ADiT.state_dict()` gives them.
        path: a `.ckpt` file, replaced only once the new one is complete.

    Raises:
        ValueError: an option differs from the published architecture.
    """
    state = {key: tensor for key, tensor in tensors.items() if not key.startswith("latent_")}
    _check_exportable(config, tensors)
    for theirs, ours in _TABLES.items() if config.denoiser is not None else ():
        if ours in state:
            state[theirs] = state.pop(ours)
        else:  # a network without this condition: label 0 of an all-zero table adds nothing
            state[theirs] = torch.zeros(231, config.denoiser.width)  # type: ignore[union-attr]
    if config.denoiser is None:
        state = {key.removeprefix("autoencoder."): tensor for key, tensor in state.items()}
    state = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save({"state_dict": state}, temporary)


def _check_exportable(config: ADiTConfig, tensors: Mapping[str, Tensor]) -> None:
    target = published()
    differing = [
        f"autoencoder.{name}={getattr(config.autoencoder, name)!r}"
        for name in ("lattice_input", "input_frame")
        if getattr(config.autoencoder, name) != getattr(target.autoencoder, name)
    ]
    if config.denoiser is not None and target.denoiser is not None:
        differing += [
            f"denoiser.{name}={getattr(config.denoiser, name)!r}"
            for name in (
                "modulation", "self_conditioning", "activation", "time_scale", "prediction",
                "pair_bias",
            )
            if getattr(config.denoiser, name) != getattr(target.denoiser, name)
        ]  # fmt: skip
        names = [c.name for c in config.denoiser.conditions]
        if names[1:] not in ([], ["space_group"]) or names[0] != "kind":
            differing.append(f"denoiser.conditions={names}")
    scaled = bool((tensors["latent_mean"] != 0).any() or (tensors["latent_std"] != 1).any())
    if scaled and config.denoiser is not None:
        differing.append("latents that are shifted and scaled")
    if differing:
        raise ValueError(
            f"{config.name!r} cannot be written as the published file: it has "
            f"{', '.join(differing)}, which that architecture does not know. Known kinds: "
            f"{', '.join(KINDS)} with the options of `adit_model.config.published()`."
        )
