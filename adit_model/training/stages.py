"""What each stage begins with: a new network, or that of a checkpoint with what is added to it."""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from adit_model.checkpoints import folder as checkpoint
from adit_model.checkpoints.pretrained import CheckpointNotice, read
from adit_model.config import (
    ELEMENTS,
    KINDS,
    MAX_ATOMIC_NUMBER,
    ADiTConfig,
    Condition,
    DenoiserConfig,
    PriorConfig,
)
from adit_model.data import CompositionTable, PreparedData, SizeGroups, frame_for_denoiser
from adit_model.layers import LabelEmbedding
from adit_model.model import ADiT
from adit_model.pairs import aim_points
from adit_model.sharded_data import ShardedData, groups_of, load_data
from adit_model.training.latents import draw_latent
from adit_model.training.settings import TrainingConfig, TrainingError


def standardize(model: ADiT, groups: list[SizeGroups], draws: int = 16) -> None:
    """Set the latent's mean and deviation a channel, each data set counting the same."""
    generator = torch.Generator(model.device).manual_seed(0)
    chosen = random.Random(0)  # noqa: S311
    latents = []
    with torch.no_grad():
        for group in groups:
            drawn = [
                draw_latent(
                    model,
                    group.draw(2048, generator, chosen.random()),
                    generator,
                    group.kind == KINDS[0],
                )
                for _ in range(draws)
            ]
            flat = torch.cat([z.flatten(0, 1) for z in drawn])
            latents.append(flat[torch.randperm(len(flat), device=flat.device)[:16384]])
        mixed = torch.cat(latents)
        model.latent_mean.copy_(mixed.mean(dim=0))
        model.latent_std.copy_(mixed.std(dim=0))


def aim_pairs(model: ADiT, groups: list[SizeGroups], draws: int = 16) -> None:
    """Let the pair features begin as distances: fit coordinates by linear maps of latents."""
    assert model.denoiser is not None
    generator = torch.Generator(model.device).manual_seed(0)
    frame = model.config.flow.molecule_frame
    for group in groups:
        latents, coordinates = [], []
        for draw in range(draws):
            batch = group.draw(2048, generator, (draw + 0.5) / draws)
            periodic = group.kind == KINDS[0]
            batch = frame_for_denoiser(batch, frame, generator, periodic)
            mean, _ = model.autoencoder.encode(batch, padded=False)
            latents.append(((mean - model.latent_mean) / model.latent_std).detach().flatten(0, 1))
            coordinates.append((batch.frac_coords if periodic else batch.positions).flatten(0, 1))
        aim_points(
            model.denoiser.pairs, torch.cat(latents), torch.cat(coordinates), group.kind == KINDS[0]
        )


def size_histograms(data: Sequence[PreparedData | ShardedData]) -> dict[str, list[int]]:
    """Training structures of 0, 1, 2, ... atoms by kind, of all data sets of it together."""
    found: dict[str, list[int]] = {}
    for part in data:
        both = zip_longest(found.get(part.kind, []), part.size_histogram(), fillvalue=0)
        found[part.kind] = [sum(numbers) for numbers in both]
    return found


def tell_of_larger(
    trained: ADiTConfig, data: Sequence[PreparedData | ShardedData], name: str
) -> None:
    """Warn of training structures larger than any that a checkpoint's autoencoder has learned.

    Their latents hold too little for the decoder, so that a denoiser learns in vain.
    """
    for kind, histogram in size_histograms(data).items():
        largest, known = len(histogram) - 1, len(trained.size_histogram.get(kind, ())) - 1
        if 0 < known < largest:
            number = sum(histogram[known + 1 :])
            text = (
                f"The autoencoder of {name} has learned {kind}s of at most {known} atoms; {number} "
                f"of {sum(histogram)} have up to {largest} and will not come back well. Train it "
                "on them first: adit train autoencoder --init CHECKPOINT."
            )
            warnings.warn(text, CheckpointNotice, stacklevel=3)


def initial_model(
    config: TrainingConfig,
    architecture: ADiTConfig,
    autoencoder: Path | None,
    conditions: Sequence[str] = (),
) -> ADiT:
    """A new model for a stage; the second takes its autoencoder from the first.

    Raises:
        TrainingError: the second stage has no autoencoder, or a condition no labels.
        CheckpointError: the autoencoder's folder is unreadable.
    """
    torch.manual_seed(config.seed)
    loaded = [load_data(Path(path)) for path in config.data]
    histogram = size_histograms(loaded)
    if config.stage == "autoencoder":
        return ADiT(dataclasses.replace(architecture, denoiser=None, size_histogram=histogram))
    if config.stage == "prior":
        raise TrainingError("A prior is added to a checkpoint: pass --init CHECKPOINT.")
    if autoencoder is None:
        raise TrainingError(
            "The denoiser needs a trained autoencoder: pass --autoencoder DIR, or --init to go on "
            "from a checkpoint."
        )
    first, tensors, _ = read(autoencoder)
    tell_of_larger(first, loaded, str(autoencoder))
    denoiser = architecture.denoiser
    if denoiser is not None:
        denoiser = dataclasses.replace(denoiser, latent_dim=first.autoencoder.latent_dim)
    model = ADiT(
        dataclasses.replace(
            architecture,
            autoencoder=first.autoencoder,
            denoiser=denoiser and with_conditions(denoiser, loaded, conditions),
            size_histogram=histogram,
            provenance=architecture.provenance | _kept(first.provenance, ("autoencoder",)),
        )
    )
    stage_one = {
        k.removeprefix("autoencoder."): v
        for k, v in tensors.items()
        if k.startswith("autoencoder.")
    }
    checkpoint.load_into(model.autoencoder, stage_one, str(autoencoder))
    groups = [groups_of(data, "train", "cpu") for data in loaded]
    if architecture.flow.standardize_latents:
        standardize(model, groups)
    if model.denoiser is not None and model.denoiser.config.pair_bias:
        aim_pairs(model, groups)
    return model


def _kept(provenance: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """What is said of some stages, in the order of old."""
    return {name: said for name, said in provenance.items() if name in names}


def continued_model(
    config: TrainingConfig,
    init: str,
    name: str,
    pair_bias: bool | None = None,
    latents: Literal["sample", "mean"] | None = None,
    conditions: Sequence[str] = (),
) -> ADiT:
    """A model with the weights and the architecture of a checkpoint, to train on.

    Args:
        config: the run.
        init: a checkpoint's name, folder or `.ckpt` file.
        name: the new model's name: sample ids begin with it, so never that of other weights.
        pair_bias: give the denoiser pair features where the checkpoint has none; they change
            nothing until they are trained. They cannot be taken away; None leaves it as it is.
        latents: "sample" or "mean" (`FlowConfig`); by default the checkpoint's.
        conditions: names of further conditions, see `described_conditions`; they change nothing
            until they are trained.

    Raises:
        TrainingError: the checkpoint lacks the stage that is to be trained, or no data set has
            labels for a condition.
        CheckpointError: it is missing or damaged.
    """
    old, tensors, identity = read(init)
    loaded = [load_data(Path(path)) for path in config.data]
    if config.stage != "autoencoder" and old.denoiser is None:
        raise TrainingError(f"{init} holds no denoiser; begin one with --autoencoder {init}.")
    histogram = size_histograms(loaded)
    if pair_bias is False and old.denoiser is not None and old.denoiser.pair_bias:
        raise TrainingError(f"{init} has pair features; leave out --no-pair-bias")
    if config.stage == "denoiser":
        tell_of_larger(old, loaded, init)
    # What stands on the latents goes where these change.
    alone = config.stage == "autoencoder" and not config.decoder_only
    denoiser = None if alone else old.denoiser
    added = bool(pair_bias) and denoiser is not None and not denoiser.pair_bias
    if added and denoiser is not None:
        denoiser = dataclasses.replace(denoiser, pair_bias=True)
    prior = None if alone else old.prior
    if config.stage == "prior":
        new_data = new_prior(loaded, conditions)
        prior = new_data if prior is None else widened(prior, new_data)
    if config.stage == "prior" or config.decoder_only:
        histogram = {}  # sizes are those that the denoiser has learned
    new: list[str] = []  # of conditions, where their embedders are
    if denoiser is not None and config.stage == "denoiser":
        extended = with_conditions(denoiser, loaded, conditions)
        new = _added("denoiser", denoiser.conditions, extended.conditions)
        denoiser = extended
    if prior is not None and old.prior is not None:
        new += _added("prior", old.prior.conditions, prior.conditions)
    told = old.provenance
    if alone:  # what is said of the rest goes with it
        told = _kept(told, told.keys() - {"denoiser", "prior"})
        old = dataclasses.replace(old, sampling={}, guidance_scales={})
    torch.manual_seed(config.seed)
    model = ADiT(
        dataclasses.replace(
            old,
            name=name,
            denoiser=denoiser,
            prior=prior,
            flow=dataclasses.replace(old.flow, latents=latents or old.flow.latents),
            size_histogram=old.size_histogram | histogram,
            provenance=told | {"continued_from": f"{old.name} {identity}"},
        )
    )
    gone = ("denoiser.", "prior.") if alone else ()
    kept = {k: v for k, v in tensors.items() if not k.startswith(gone)}
    for name in new:
        embedder = model.get_submodule(name)
        if isinstance(embedder, LabelEmbedding):  # the others begin with nothing by themselves
            nn.init.zeros_(embedder.embedding_table.weight)
    begun = tuple(f"{name}." for name in new)
    begun += ("denoiser.pairs.",) if added else ()
    begun += ("prior.",) if old.prior is None and prior is not None else ()
    kept |= {k: v for k, v in model.state_dict().items() if k.startswith(begun)}
    checkpoint.load_into(model, kept, init)
    if added:
        aim_pairs(model, [groups_of(data, "train", "cpu") for data in loaded])
    return model


def _added(part: str, before: Sequence[Condition], now: Sequence[Condition]) -> list[str]:
    """Names of the submodules that embed the conditions which a part of the model had not."""
    names = sorted({c.name for c in now} - {c.name for c in before})
    return [f"{part}.condition_embedders.{name}" for name in names]


def with_conditions(
    denoiser: DenoiserConfig, data: Sequence[PreparedData | ShardedData], names: Sequence[str]
) -> DenoiserConfig:
    """The configuration with more conditions, see `described_conditions`."""
    there = {c.name: c for c in denoiser.conditions}
    new = described_conditions(data, [name for name in names if name not in there])
    return dataclasses.replace(denoiser, conditions=(*there.values(), *new))


def new_prior(data: Sequence[PreparedData | ShardedData], names: Sequence[str]) -> PriorConfig:
    """A prior over the elements and sizes of some data sets."""
    elements: dict[str, set[int]] = {}
    hydrogens_last = even_electrons = True
    for part in data:
        table = CompositionTable(part.compositions(), "train", "cpu").numbers
        elements.setdefault(part.kind, set()).update(table.unique().tolist())
        if part.kind == "molecule":
            after = (table[:, 1:] > 1) & (table[:, :-1] == 1)
            hydrogens_last = hydrogens_last and not bool(after.any())
            even_electrons = even_electrons and not bool((table.sum(dim=1) % 2).any())
    return PriorConfig(
        max_atoms=max(int(part.num_atoms.max()) for part in data),
        conditions=described_conditions(data, names),
        elements={kind: sorted(found - {0}) for kind, found in elements.items()},
        hydrogens_last=hydrogens_last,
        even_electrons=even_electrons and "molecule" in elements,
    )


def widened(prior: PriorConfig, new: PriorConfig) -> PriorConfig:
    """A trained prior's options, with what other data sets hold besides.

    Raises:
        TrainingError: they hold larger structures than it has places for.
    """
    if new.max_atoms > prior.max_atoms:
        raise TrainingError(
            f"The checkpoint's prior knows structures of at most {prior.max_atoms} atoms, the data "
            f"have {new.max_atoms}. Leave the larger ones out, or begin a prior on a checkpoint "
            "that has none."
        )
    elements = {
        kind: sorted({*prior.elements.get(kind, ()), *new.elements.get(kind, ())})
        for kind in prior.elements | new.elements
    }
    molecules = "molecule" in new.elements
    there = {condition.name for condition in prior.conditions}
    return dataclasses.replace(
        prior,
        elements=elements,
        conditions=(*prior.conditions, *(c for c in new.conditions if c.name not in there)),
        hydrogens_last=prior.hydrogens_last and (new.hydrogens_last or not molecules),
        even_electrons=prior.even_electrons and (new.even_electrons or not molecules),
    )


def described_conditions(
    data: Sequence[PreparedData | ShardedData], names: Sequence[str]
) -> tuple[Condition, ...]:
    """Conditions by name, each as the data sets describe it.

    The elements need no labels; a property of several data sets gets the widest range.

    Raises:
        TrainingError: no data set has such labels.
    """
    known = {ELEMENTS: Condition(ELEMENTS, MAX_ATOMIC_NUMBER, "atom_class", dropout=0.15)}
    for condition in (each for part in data for each in part.conditions):
        other = known.get(condition.name, condition)
        known[condition.name] = dataclasses.replace(
            condition,
            low=min(condition.low, other.low),
            high=max(condition.high, other.high),
            kinds=tuple(kind for kind in KINDS if kind in (*condition.kinds, *other.kinds)),
        )
    for name in names:
        if name not in known:
            raise TrainingError(
                f"no data set has labels for the condition {name!r}. Known: {', '.join(known)}."
            )
    return tuple(known[name] for name in dict.fromkeys(names))
